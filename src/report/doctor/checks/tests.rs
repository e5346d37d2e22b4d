//! A table of facts and words for each check.

use super::*;
use crate::model::{GpuFacts, MachineFacts, MachineState};
use crate::report::TextStyle;
use crate::report::doctor::findings_text;

fn text(findings: Vec<Finding>) -> String {
    findings_text(&findings, TextStyle::PLAIN)
}

#[test]
fn data() {
    let check = |state| text(check_data(&DataFacts { path: "data".to_owned(), state }));
    let directory = |unwritable: Option<&str>, mode, owner| DataState::Directory {
        unwritable: unwritable.map(str::to_owned),
        mode,
        owner,
        own: 1000,
    };
    insta::assert_snapshot!(
        [
            check(DataState::Absent),
            check(DataState::Unusable("not a directory".to_owned())),
            check(directory(None, 0o755, 1000)),
            check(directory(Some("read-only"), 0o1777, 0)),
        ]
        .join("\n")
    );
}

#[test]
fn disk() {
    let check = |free_bytes, free_inodes, expected: &[Severity]| {
        let found = check_disk(DiskFacts { free_bytes, free_inodes }, "");
        let severities: Vec<Severity> = found.iter().map(|finding| finding.severity).collect();
        assert_eq!(severities, expected);
        assert!(found.iter().all(|finding| finding.mend.is_some() == (finding.severity > Severity::Ok)));
    };
    check(FEW_BYTES, None, &[Severity::Ok]);
    check(FEW_BYTES - 1, Some(FEW_INODES), &[Severity::Warning, Severity::Ok]);
    check(LEAST_BYTES - 1, Some(LEAST_INODES - 1), &[Severity::Problem, Severity::Problem]);
    check(u64::MAX, Some(LEAST_INODES), &[Severity::Ok, Severity::Warning]);
}

#[test]
fn leftovers() {
    let facts = [LeftoverFacts::Removal("a".to_owned()), LeftoverFacts::File("b".to_owned())];
    insta::assert_snapshot!(text(check_leftovers(&facts, " --data d")));
    assert_eq!(check_leftovers(&[], ""), []);
    let many = vec![LeftoverFacts::File("b".to_owned()); NAMED + 2];
    assert_eq!(check_leftovers(&many, "").last().map(|last| last.found.as_str()), Some("and 2 more"));
}

#[test]
fn runners() {
    let model = |is_there, has_tokenizer| ModelFacts { path: "models/m".to_owned(), is_there, has_tokenizer };
    let check = |found| {
        let (path, name) = ("runners/r.yml".to_owned(), "r".to_owned());
        text(check_runner(&RunnerFacts { path, name, labels: Vec::new(), found }, true))
    };
    let found = |model, engine| {
        Ok(RunnerFound { model, engine, has_containers: false, other_machine: None, unclean: None })
    };
    let on_another = || RunnerFound {
        model: None,
        engine: Ok("starts processes".to_owned()),
        has_containers: false,
        other_machine: Some("it has 3 GPUs, and `machine.gpus` says 4".to_owned()),
        unclean: Some("process 7 computes on GPU 0".to_owned()),
    };
    let silent = EngineFailure { why: "cannot reach Docker".to_owned(), mend: "start it".to_owned() };
    insta::assert_snapshot!(
        [
            check(Err("no `name`".to_owned())),
            check(found(None, Ok("starts processes".to_owned()))),
            check(found(Some(model(false, false)), Err(silent))),
            check(found(Some(model(true, false)), Ok("starts processes".to_owned()))),
            check(found(Some(model(true, true)), Ok("starts processes".to_owned()))),
            check(Ok(on_another())),
        ]
        .join("\n")
    );
}

#[test]
fn machines() {
    let gpu = |name: &str| GpuFacts {
        name: Some(name.to_owned()),
        links: vec!["switch: 18 NVLinks".to_owned()],
        ..GpuFacts::default()
    };
    let gpus =
        GpusFound::Known { driver: "570.1".to_owned(), cuda: None, list: vec![gpu("H200"), gpu("H200")] };
    let facts = MachineFacts {
        cpu: Some("a processor".to_owned()),
        cpus: Some(64),
        memory_bytes: Some(1 << 40),
        kernel: Some("6.8".to_owned()),
        cpu_governor: Some("powersave".to_owned()),
        clock_source: Some("hpet".to_owned()),
        gpus,
    };
    let xid = |code| Xid { pci: "0000:41:00".to_owned(), code };
    let state = MachineState { xids: Some(vec![xid(31), xid(79)]), gpus: Vec::new() };
    let plain = check_machine(&MachineLook::default());
    let all = check_machine(&MachineLook { facts, state });
    insta::assert_snapshot!([text(plain), text(all)].join("\n"));
}

#[test]
fn processes() {
    let process = |parent, is_ours| ProcessFacts { parent, is_ours, mark: None, is_server: false };
    let script = |parent, mark| ProcessFacts { mark: Some(mark), ..process(parent, false) };
    let server = |parent| ProcessFacts { is_server: true, ..process(parent, false) };
    let check = |all: &[(u32, ProcessFacts)], expected: &[&str]| {
        let found = check_processes(&all.iter().cloned().collect());
        let mends: Vec<&str> = found.iter().filter_map(|finding| finding.mend.as_deref()).collect();
        assert_eq!(mends, expected, "{all:?}");
    };
    let init = (1, process(0, false));
    check(&[], &[]);
    check(&[init.clone(), (2, process(1, true)), (3, script(2, 2)), (4, server(2)), (5, server(4))], &[]);
    check(
        &[init.clone(), (3, script(1, 2)), (4, server(1)), (5, server(4))],
        &["kill 3", "kill 4", "kill 5"],
    );
    // The id of the dead one is another program's by now.
    check(&[init, (2, process(1, false)), (3, script(1, 2))], &["kill 3"]);
    check(&[(4, server(5)), (5, server(4))], &["kill 4", "kill 5"]);
}

#[test]
fn clock() {
    let time = |text: &str| text.parse::<Timestamp>().expect("a time");
    let facts = ClockFacts {
        now: time("2026-12-01T00:00:00Z"),
        built_at: Some(time("2026-11-01T00:00:00Z")),
        newest: Some((time("2026-12-01T00:00:00Z"), "a".to_owned())),
        is_synchronised: None,
    };
    let late = ClockFacts { now: time("2026-01-01T00:00:00Z"), is_synchronised: Some(true), ..facts.clone() };
    insta::assert_snapshot!([text(check_clock(&facts)), text(check_clock(&late))].join("\n"));
}

#[test]
fn containers() {
    let container = |name: &str, is_held| ContainerFacts {
        name: name.to_owned(),
        round: "r".to_owned(),
        is_running: true,
        is_held,
    };
    let check = |found: Result<Vec<ContainerFacts>, String>, expected: &[(Severity, Option<&str>)]| {
        let findings = check_containers(&found);
        let found: Vec<_> = findings.iter().map(|found| (found.severity, found.mend.as_deref())).collect();
        assert_eq!(found, expected);
    };
    check(Ok(vec![]), &[(Severity::Ok, None)]);
    check(Ok(vec![container("a", Some(true))]), &[(Severity::Ok, None)]);
    let both = vec![container("a", Some(false)), container("b", Some(true)), container("c", None)];
    check(
        Ok(both),
        &[(Severity::Warning, Some("docker rm -f a")), (Severity::Warning, Some("docker rm -f c"))],
    );
    let many = vec![container("a", Some(false)); NAMED + 1];
    assert_eq!(check_containers(&Ok(many)).len(), NAMED + 1);
    check(Err("refused".to_owned()), &[(Severity::Problem, Some("look at the daemon's log"))]);
}
