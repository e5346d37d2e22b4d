//! What this program knows of GPUs, as the driver's library tells it.

use cacheon::adapters::machine::ThisMachine;
use cacheon::judge::machine::{broken, not_as_stated, not_clean};
use cacheon::model::{GpusFound, MachineSpec, Throttle};
use cacheon::ports::Machine as _;

use crate::nvml::Driver;

const FOUR: &str = "gpus 4\nused_mib 3\n";

#[test]
fn a_machine_with_four_gpus_is_known() {
    let folder = tempfile::tempdir().expect("a folder");
    let driver = Driver::build(folder.path());
    let machine = ThisMachine::with_driver(&driver.library);
    driver.say(FOUR);
    let look = machine.look();
    let GpusFound::Known { driver: version, cuda, list } = &look.facts.gpus else {
        panic!("{:?}", look.facts.gpus)
    };
    assert_eq!((version.as_str(), *cuda, list.len()), ("570.124.06", Some(12_080), 4));
    let gpu = &list[2];
    assert_eq!(gpu.uuid.as_deref(), Some("GPU-a2"));
    assert_eq!(gpu.pci.as_deref(), Some("00000000:42:00.0"));
    assert_eq!(gpu.name.as_deref(), Some("NVIDIA H200"));
    assert_eq!(gpu.memory_bytes, Some(143_771 << 20));
    assert_eq!((gpu.is_ecc_on, gpu.is_mig_on), (Some(true), Some(false)));
    assert_eq!(
        (gpu.power_limit_mw, gpu.max_sm_mhz, gpu.max_memory_mhz),
        (Some(700_000), Some(1980), Some(3201))
    );
    assert_eq!((gpu.pcie_generation, gpu.pcie_lanes), (Some(5), Some(16)));
    let links = [
        "gpu 3: 2 NVLinks",
        "switch: 1 NVLinks",
        "gpu 0: between NUMA nodes",
        "gpu 1: between NUMA nodes",
        "gpu 3: one host bridge",
    ];
    assert_eq!(gpu.links, links);

    let now = &look.state.gpus[2];
    assert_eq!((now.used_bytes, now.power_mw, now.celsius), (Some(3 << 20), Some(75_000), Some(31)));
    assert_eq!((now.sm_mhz, now.memory_mhz), (Some(1755), Some(3201)));
    assert_eq!((now.throttle, now.uncorrected), (Some(Throttle(1)), Some(0)));
    assert_eq!((now.processes.as_deref(), now.lost.as_deref()), (Some(&[][..]), None));

    let stated = MachineSpec { gpus: 4, gpu_model: Some("h200".to_owned()), gpu_memory_gib: Some(140) };
    assert_eq!(not_as_stated(&stated, &look.facts), None);
    assert_eq!(not_clean(&look.state), None);
}

#[test]
fn what_becomes_of_gpus_is_seen() {
    let folder = tempfile::tempdir().expect("a folder");
    let driver = Driver::build(folder.path());
    let machine = ThisMachine::with_driver(&driver.library);
    driver.say(FOUR);
    let before = machine.look().state;
    let after = |more: &str| {
        driver.say(&format!("{FOUR}{more}"));
        machine.look().state
    };
    assert_eq!(not_clean(&after("pid 77\n")).as_deref(), Some("process 77 computes on GPU 0"));
    assert!(
        not_clean(&after("used_mib 2048\n")).is_some_and(|why| why.starts_with("2048 MiB of GPU 0's memory"))
    );
    assert_eq!(
        not_clean(&after("throttle 0x48\n")).as_deref(),
        Some("GPU 0 is slowed down: hardware-slowdown,hardware-thermal")
    );
    assert_eq!(
        broken(&before, &after("uncorrected 2\n")).as_deref(),
        Some("GPU 0 had 2 errors of memory that it could not correct")
    );
    let lost = after("lost 1\n");
    assert!(broken(&before, &lost).is_some_and(|why| why.starts_with("GPU 3 does not answer: ")));
    assert!(not_clean(&lost).is_some_and(|why| why.starts_with("GPU 3 does not answer: ")));
}

#[test]
fn a_machine_without_the_driver_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("libnvidia-ml.so.1");
    let machine = ThisMachine::with_driver(&path);
    let absent = format!("NVIDIA's driver is not there: `{}` cannot be loaded", path.display());
    assert_eq!(machine.look().facts.gpus, GpusFound::Unknown(absent));
    assert!(machine.gpus().is_empty());
    // One that comes later is seen.
    Driver::build(folder.path()).say(FOUR);
    assert_eq!(machine.gpus().len(), 4);
}
