//! Whether a machine is fit to measure: what its runner's file says, the same machine as before, and clean.
//!
//! What nobody can know there, without NVIDIA's driver for example, fails nothing unless the runner's file asks for it: the read
//! says that it is unknown.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::model::{GpuState, GpusFound, MachineFacts, MachineLook, MachineSpec, MachineState, Xid};

/// Most memory of a GPU that may be in use before a server is launched, in bytes: what a driver keeps for itself is less.
const MAX_IDLE_BYTES: u64 = 1 << 30;

/// Bytes of a GiB.
const GIB: u64 = 1 << 30;

/// In what a machine is not what its runner's file says; none where it is, or nothing is said.
pub fn not_as_stated(stated: &MachineSpec, facts: &MachineFacts) -> Option<String> {
    if *stated == MachineSpec::default() {
        return None;
    }
    let list = match &facts.gpus {
        GpusFound::Unknown(why) => return Some(format!("nothing is known of its GPUs: {why}")),
        GpusFound::Known { list, .. } => list,
    };
    let (wanted, found) = (stated.gpus as usize, list.len());
    if wanted != found {
        return Some(format!("it has {found} GPUs, and `machine.gpus` says {wanted}"));
    }
    list.iter().enumerate().find_map(|(number, gpu)| {
        let name = gpu.name.as_deref().unwrap_or("without a name");
        if let Some(model) = &stated.gpu_model
            && !name.to_lowercase().contains(&model.to_lowercase())
        {
            return Some(format!("GPU {number} is `{name}`, and `machine.gpu-model` says `{model}`"));
        }
        let memory = gpu.memory_bytes.unwrap_or_default();
        if let Some(gib) = stated.gpu_memory_gib
            && memory < u64::from(gib) * GIB
        {
            return Some(format!(
                "GPU {number} has {} GiB of memory, and `machine.gpu-memory-gib` says {gib}",
                memory / GIB
            ));
        }
        (gpu.is_mig_on == Some(true)).then(|| format!("GPU {number} is divided (MIG)"))
    })
}

/// The first thing in which a machine is another than it was.
pub fn difference(was: &MachineFacts, is: &MachineFacts) -> Option<String> {
    let (was, is) = (leaves(was), leaves(is));
    let names: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let absent = || "absent".to_owned();
    names.into_iter().find(|name| was.get(*name) != is.get(*name)).map(|name| {
        let (was, is) = (was.get(name).cloned(), is.get(name).cloned());
        format!("`{name}` was {}, and is {}", was.unwrap_or_else(absent), is.unwrap_or_else(absent))
    })
}

/// Each fact by its path.
fn leaves(facts: &MachineFacts) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = vec![(String::new(), serde_json::to_value(facts).unwrap_or_default())];
    while let Some((path, value)) = rest.pop() {
        match value {
            Value::Object(map) => rest
                .extend(map.into_iter().map(|(key, value)| {
                    (if path.is_empty() { key } else { format!("{path}.{key}") }, value)
                })),
            Value::Array(items) => {
                let items = items.into_iter().enumerate();
                rest.extend(items.map(|(index, value)| (format!("{path}[{index}]"), value)));
            }
            leaf => {
                found.insert(path, leaf.to_string());
            }
        }
    }
    found
}

/// What has to pass before a server is launched on a machine's GPUs: somebody computes, memory is not given back, it is too hot.
pub fn not_clean(state: &MachineState) -> Option<String> {
    state.gpus.iter().enumerate().find_map(|(number, gpu)| {
        if let Some(why) = &gpu.lost {
            return Some(format!("GPU {number} does not answer: {why}"));
        }
        if let Some(pids) = gpu.processes.as_ref().filter(|pids| !pids.is_empty()) {
            let pids: Vec<String> = pids.iter().take(8).map(ToString::to_string).collect();
            return Some(format!("process {} computes on GPU {number}", pids.join(", ")));
        }
        if let Some(bytes) = gpu.used_bytes.filter(|bytes| *bytes > MAX_IDLE_BYTES) {
            let (used, most) = (bytes >> 20, MAX_IDLE_BYTES >> 20);
            return Some(format!(
                "{used} MiB of GPU {number}'s memory are in use, at most {most} MiB are by nobody"
            ));
        }
        let unwell = gpu.throttle.unwrap_or_default().unwell();
        (!unwell.is_empty()).then(|| format!("GPU {number} is slowed down: {unwell}"))
    })
}

/// What broke on a machine between two instants, by the hardware's or the driver's fault.
pub fn broken(before: &MachineState, after: &MachineState) -> Option<String> {
    let gpus = after.gpus.iter().enumerate();
    let of_gpu = gpus.clone().find_map(|(number, gpu)| {
        let lost = gpu.lost.as_ref().map(|why| format!("GPU {number} does not answer: {why}"));
        lost.or_else(|| {
            let errors = uncorrected(before, after, number);
            (errors > 0)
                .then(|| format!("GPU {number} had {errors} errors of memory that it could not correct"))
        })
    });
    of_gpu.or_else(|| {
        let mut new = xids_since(before, after).into_iter();
        let code = new.find(|code| Xid::is_of_the_machine(*code))?;
        Some(format!("the driver reported Xid {code}, a fault of a GPU or of the driver"))
    })
}

/// Errors of a GPU's memory that could not be corrected, between two instants.
fn uncorrected(before: &MachineState, after: &MachineState, gpu: usize) -> u64 {
    let count = |state: &MachineState| state.gpus.get(gpu).and_then(|gpu| gpu.uncorrected);
    count(after).unwrap_or_default().saturating_sub(count(before).unwrap_or_default())
}

/// Errors of all GPUs' memories that could not be corrected, between two instants; none where no GPU counts them.
pub fn all_uncorrected(before: &MachineState, after: &MachineState) -> Option<u64> {
    let counted = after.gpus.iter().enumerate().filter(|(_, gpu)| gpu.uncorrected.is_some());
    counted.map(|(number, _)| uncorrected(before, after, number)).reduce(u64::saturating_add)
}

/// Numbers of the faults that the driver reported between two instants, in their order.
///
/// The kernel's log forgets its oldest lines, so what is at its end counts: the longest beginning of the later list that ends
/// the earlier one is what both have.
pub fn xids_since(before: &MachineState, after: &MachineState) -> Vec<u32> {
    let before = before.xids.as_deref().unwrap_or_default();
    let after = after.xids.as_deref().unwrap_or_default();
    let shared = (0..=before.len().min(after.len())).rev();
    let shared = shared.into_iter().find(|count| before[before.len() - count..] == after[..*count]);
    after.iter().skip(shared.unwrap_or_default()).map(|xid| xid.code).collect()
}

/// The checks of a machine that nothing can be known for there, in alphabetical order.
pub fn unknown_checks(look: &MachineLook) -> Vec<&'static str> {
    let MachineLook { facts, state } = look;
    let gpu = |is_known: fn(&GpuState) -> bool| !state.gpus.is_empty() && state.gpus.iter().all(is_known);
    let checks = [
        ("clock-source", facts.clock_source.is_some()),
        ("cpu-governor", facts.cpu_governor.is_some()),
        ("gpu-errors", gpu(|gpu| gpu.uncorrected.is_some())),
        ("gpu-memory", gpu(|gpu| gpu.used_bytes.is_some())),
        ("gpu-power", gpu(|gpu| gpu.power_mw.is_some())),
        ("gpu-processes", gpu(|gpu| gpu.processes.is_some())),
        ("gpu-temperature", gpu(|gpu| gpu.celsius.is_some())),
        ("gpu-throttle", gpu(|gpu| gpu.throttle.is_some())),
        ("gpus", matches!(facts.gpus, GpusFound::Known { .. })),
        ("xid", state.xids.is_some()),
    ];
    checks.into_iter().filter(|(_, is_known)| !is_known).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{GpuFacts, Throttle};

    fn h200(count: usize) -> MachineFacts {
        let gpu = |number| GpuFacts {
            uuid: Some(format!("GPU-{number}")),
            name: Some("NVIDIA H200".to_owned()),
            memory_bytes: Some(143_771 << 20),
            is_mig_on: Some(false),
            ..GpuFacts::default()
        };
        let list = (0..count).map(gpu).collect();
        let gpus = GpusFound::Known { driver: "570.1".to_owned(), cuda: Some(12_080), list };
        MachineFacts { gpus, cpus: Some(8), ..MachineFacts::default() }
    }

    fn stated(gpus: u32, model: &str, gib: u32) -> MachineSpec {
        MachineSpec { gpus, gpu_model: Some(model.to_owned()), gpu_memory_gib: Some(gib) }
    }

    #[test]
    fn a_machine_is_what_its_file_says() {
        let check = |stated: &MachineSpec, facts: &MachineFacts, expected: Option<&str>| {
            assert_eq!(not_as_stated(stated, facts).as_deref(), expected);
        };
        check(&stated(4, "h200", 140), &h200(4), None);
        check(&MachineSpec::default(), &h200(0), None);
        check(&MachineSpec::default(), &MachineFacts::default(), None);
        check(&stated(4, "H200", 140), &h200(3), Some("it has 3 GPUs, and `machine.gpus` says 4"));
        check(&stated(4, "H200", 140), &h200(8), Some("it has 8 GPUs, and `machine.gpus` says 4"));
        check(
            &stated(1, "H100", 140),
            &h200(1),
            Some("GPU 0 is `NVIDIA H200`, and `machine.gpu-model` says `H100`"),
        );
        check(
            &stated(1, "H200", 141),
            &h200(1),
            Some("GPU 0 has 140 GiB of memory, and `machine.gpu-memory-gib` says 141"),
        );
        let unknown = MachineFacts { gpus: GpusFound::Unknown("no driver".to_owned()), ..h200(0) };
        check(&stated(1, "H200", 1), &unknown, Some("nothing is known of its GPUs: no driver"));
        let mut divided = h200(1);
        if let GpusFound::Known { list, .. } = &mut divided.gpus {
            list[0].is_mig_on = Some(true);
        }
        check(&stated(1, "H200", 140), &divided, Some("GPU 0 is divided (MIG)"));
    }

    #[test]
    fn the_first_difference_is_named() {
        assert_eq!(difference(&h200(2), &h200(2)), None);
        let mut other = h200(2);
        if let GpusFound::Known { list, driver, .. } = &mut other.gpus {
            list[1].uuid = Some("GPU-9".to_owned());
            "571.0".clone_into(driver);
        }
        let found = difference(&h200(2), &other).expect("a difference");
        assert_eq!(found, "`gpus.known.driver` was \"570.1\", and is \"571.0\"");
        let found = difference(&h200(2), &h200(1)).expect("a difference");
        assert!(found.starts_with("`gpus.known.list[1]") && found.ends_with("and is absent"), "{found}");
        let slower = MachineFacts { cpus: Some(4), ..h200(2) };
        assert_eq!(difference(&h200(2), &slower).as_deref(), Some("`cpus` was 8, and is 4"));
    }

    fn state(gpu: GpuState) -> MachineState {
        MachineState { xids: None, gpus: vec![GpuState::default(), gpu] }
    }

    #[test]
    fn a_gpu_that_is_not_clean_is_named() {
        let check = |gpu: GpuState, expected: Option<&str>| {
            assert_eq!(not_clean(&state(gpu)).as_deref(), expected);
        };
        check(GpuState::default(), None);
        check(
            GpuState {
                used_bytes: Some(MAX_IDLE_BYTES),
                throttle: Some(Throttle(0x1)),
                ..Default::default()
            },
            None,
        );
        check(GpuState { processes: Some(vec![]), ..Default::default() }, None);
        check(
            GpuState { processes: Some(vec![7, 9]), ..Default::default() },
            Some("process 7, 9 computes on GPU 1"),
        );
        check(
            GpuState { used_bytes: Some(3 << 30), ..Default::default() },
            Some("3072 MiB of GPU 1's memory are in use, at most 1024 MiB are by nobody"),
        );
        check(
            GpuState { throttle: Some(Throttle(0x41)), ..Default::default() },
            Some("GPU 1 is slowed down: hardware-thermal"),
        );
        let lost = GpuState { lost: Some("GPU is lost".to_owned()), ..Default::default() };
        check(lost, Some("GPU 1 does not answer: GPU is lost"));
    }

    fn xids(codes: &[u32]) -> MachineState {
        let xid = |code: &u32| Xid { pci: "0000:41:00".to_owned(), code: *code };
        MachineState { xids: Some(codes.iter().map(xid).collect()), gpus: Vec::new() }
    }

    #[test]
    fn only_what_came_over_the_read_broke_in_it() {
        let check = |before: &MachineState, after: &MachineState, expected: Option<&str>| {
            assert_eq!(broken(before, after).as_deref(), expected);
        };
        let errors = |count| state(GpuState { uncorrected: Some(count), ..Default::default() });
        check(&errors(2), &errors(2), None);
        check(&errors(2), &errors(5), Some("GPU 1 had 3 errors of memory that it could not correct"));
        check(&MachineState::default(), &MachineState::default(), None);
        // A program's fault is no machine's.
        check(&xids(&[79]), &xids(&[79, 31]), None);
        check(
            &xids(&[79]),
            &xids(&[79, 31, 79]),
            Some("the driver reported Xid 79, a fault of a GPU or of the driver"),
        );
        let lost = state(GpuState { lost: Some("GPU is lost".to_owned()), ..Default::default() });
        check(&state(GpuState::default()), &lost, Some("GPU 1 does not answer: GPU is lost"));
    }

    #[test]
    fn a_log_that_forgets_its_beginning_hides_nothing_new() {
        let since = |before: &[u32], after: &[u32]| xids_since(&xids(before), &xids(after));
        assert!(since(&[], &[]).is_empty());
        assert_eq!(since(&[1, 2, 3], &[1, 2, 3, 4]), [4]);
        assert_eq!(since(&[1, 2, 3], &[2, 3, 4, 5]), [4, 5]);
        assert_eq!(since(&[1, 2, 3], &[7]), [7]);
        assert!(since(&[1, 2, 3], &[]).is_empty());
        assert_eq!(xids_since(&MachineState::default(), &xids(&[79])), [79]);
    }

    #[test]
    fn what_cannot_be_known_is_listed() {
        let all = unknown_checks(&MachineLook::default());
        assert_eq!(
            all,
            [
                "clock-source",
                "cpu-governor",
                "gpu-errors",
                "gpu-memory",
                "gpu-power",
                "gpu-processes",
                "gpu-temperature",
                "gpu-throttle",
                "gpus",
                "xid"
            ]
        );
        let gpu = GpuState {
            used_bytes: Some(0),
            power_mw: Some(0),
            celsius: Some(0),
            throttle: Some(Throttle(0)),
            uncorrected: Some(0),
            processes: Some(vec![]),
            ..Default::default()
        };
        let state = MachineState { xids: Some(Vec::new()), gpus: vec![gpu] };
        let facts = MachineFacts {
            cpu_governor: Some("performance".to_owned()),
            clock_source: Some("tsc".to_owned()),
            ..h200(1)
        };
        assert!(unknown_checks(&MachineLook { facts, state }).is_empty());
    }
}
