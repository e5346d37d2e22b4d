//! Reads on a machine with GPUs, as a stand-in for their driver's library tells them.

use std::path::Path;

use cacheon::artifact::decode;
use cacheon::model::{GpuSampleRow, ReadRow};

use super::nvml::Driver;
use super::round::Round;

/// A leg: its key, its arm, what the driver says before the launch and from then on, and how it ends.
type Leg = (&'static str, &'static str, &'static str, &'static str, Option<&'static str>);

/// What becomes of reads while the GPUs do this. The first one's machine is what the others are held against.
const LEGS: [Leg; 10] = [
    ("1-sound", "baseline", "", "power_mw 500000\\nclock 1700\\nused_mib 130000", None),
    ("2-another", "baseline", "uuid GPU-b", "", Some("machine-differs")),
    ("3-one-less", "candidate", "gpus 3", "", Some("machine-differs")),
    ("4-replaced", "candidate", "", "uuid GPU-b", Some("machine-differs")),
    ("5-shared", "candidate", "", "pid 1", Some("machine-not-idle")),
    ("6-errors", "candidate", "uncorrected 1", "uncorrected 4", Some("gpu-failed")),
    ("7-lost", "baseline", "", "lost 1", Some("gpu-failed")),
    ("8-hot", "baseline", "", "throttle 0x44", Some("gpu-slowed")),
    // It may have done that itself.
    ("9-hot-too", "candidate", "", "throttle 0x44", None),
    // With its machine, which is why.
    ("9-killed", "candidate", "", "uncorrected 4", Some("gpu-failed")),
];

/// The same where the runner's file says nothing of GPUs: whoever else uses them is not in the way.
const DESK: [Leg; 1] = [("1-desk", "baseline", "pid 1\\nthrottle 0x40", "uncorrected 3", None)];

/// A pipeline with a job of these legs, whose servers have this model directory.
fn pipeline(all: &[Leg], driver: &Path, served: &Path) -> String {
    let read = |(key, arm, before, meanwhile, _): &Leg| {
        let hotkey =
            if *arm == "candidate" { "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY" } else { "null" };
        format!(
            "          - key: {key}
            before: \"{before}\"
            meanwhile: \"{meanwhile}\"
            read:
              {{ key: {key}, arm: {arm}, hotkey: {hotkey}, image: embedded/baseline,
                digest: 'sha256:a66451ac1675f8505c73c11f96b84a9cea7f428cea58c9b364f74c85a8a1f838',
                position: {position}, sequence: one }}
",
            position = &key[..1],
        )
    };
    let legs: String = all.iter().map(read).collect();
    let say = |what: &str| {
        let path = driver.display();
        format!(
            "      - run: printf 'gpus 4\\n%b\\n' \"{what}\" > {path}.part && mv {path}.part {path}.txt\n"
        )
    };
    format!(
        "name: gpus
jobs:
  measure:
    runs-on: embedded
    strategy:
      fail-fast: false
      matrix:
        include:
{legs}      key: ${{{{ matrix.key }}}}
      sequence: one
    env:
      LEG: ${{{{ matrix.key }}}}
      BEFORE: ${{{{ matrix.before }}}}
      MEANWHILE: ${{{{ matrix.meanwhile }}}}
      SERVED: {served}
    outputs:
      data: ${{{{ steps.benchmark.outputs.data }}}}
    steps:
{before}      - id: boot
        uses: boot
        with:
          image: ${{{{ matrix.read.image }}}}
          digest: ${{{{ matrix.read.digest }}}}
          role: ${{{{ matrix.read.arm }}}}
          deadline: 20s
{meanwhile}      - run: >-
          if [ $LEG = 9-killed ]; then for process in /proc/[0-9]*; do
          grep -qs CACHEON_MODEL_DIR=$SERVED $process/environ && kill -9 ${{process#/proc/}}; done; fi; true
      - id: benchmark
        uses: benchmark
        with:
          endpoint: ${{{{ steps.boot.outputs.endpoint }}}}
          read: ${{{{ matrix.read }}}}
          prompts: 2
          max-tokens: 8
          request-deadline: 10s
          max-client-lag: 10s
          max-foreign-cpu: 1
          max-stall: 1
  publish:
    runs-on: controller
    needs: measure
    if: ${{{{ !cancelled() }}}}
    steps:
      - uses: publish
",
        served = served.display(),
        before = say("$BEFORE"),
        meanwhile = say("$MEANWHILE"),
    )
}

/// Runs a round of these legs, and asserts how each ends.
#[track_caller]
fn run(round: &Round, legs: &[Leg], (id, driver): (&str, &Driver)) {
    let path = round.dir.path().join(format!("{id}.yml"));
    let served = round.dir.path().join("model");
    std::fs::write(&path, pipeline(legs, &driver.library, &served)).expect("the pipeline");
    let mut command = round.cacheon(&["run", "--round", id, "--seed", "1", "--runners"]);
    command.arg(round.dir.path().join("runners")).arg(&path);
    let output = command.env("LD_LIBRARY_PATH", round.dir.path()).output().expect("starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let ended = round.rows(&format!(
        "SELECT leg, MAX(reason) AS reason FROM step_attempts
         WHERE job = 'measure' AND round_id = '{id}' GROUP BY leg ORDER BY leg"
    ));
    let ended: Vec<_> =
        ended.iter().map(|row| (row["leg"].as_str().unwrap_or_default(), row["reason"].as_str())).collect();
    let expected: Vec<_> = legs.iter().map(|(key, .., reason)| (*key, *reason)).collect();
    assert_eq!(ended, expected, "{said}");
}

#[test]
fn a_read_is_void_where_its_gpus_are_not_what_they_were() {
    let round = Round::new();
    let driver = Driver::build(round.dir.path());
    driver.say("gpus 4\n");
    run(&round, &DESK, ("desk", &driver));
    driver.say("gpus 4\n");
    let runner = round.dir.path().join("runners/embedded.yml");
    let stated = "machine: { gpus: 4, gpu-model: H200, gpu-memory-gib: 140 }\n";
    let text = std::fs::read_to_string(&runner).expect("the runner") + stated;
    std::fs::write(&runner, text).expect("the runner");
    run(&round, &LEGS, ("r", &driver));

    let attempt = |leg: &str| round.data().join("rounds/round=r/jobs/measure").join(leg).join("attempt-1");
    let bytes = std::fs::read(attempt("1-sound").join("read.parquet")).expect("kept");
    let [read] = <[ReadRow; 1]>::try_from(decode::<ReadRow>(&bytes).expect("rows")).expect("a row");
    assert_eq!((read.gpus, read.gpu_model.as_deref()), (Some(4), Some("NVIDIA H200")));
    assert_eq!(read.gpu_memory_bytes, Some(143_771 << 20));
    assert_eq!(read.gpu_topology.as_deref().map(|text| text.split("; ").count()), Some(4));
    assert_eq!((read.gpu_used_before_bytes, read.gpu_min_mhz), (Some(0), Some(1700)));
    assert_eq!((read.gpu_foreign, read.gpu_uncorrected), (Some(0), Some(0)));
    // Four GPUs of 500 W, over the read.
    let seconds = read.benchmark_ns.expect("measured") as f64 / 1e9;
    let joules = read.gpu_energy_joules.expect("an energy");
    assert!((joules / seconds - 2000.0).abs() < 1.0, "{joules} J in {seconds} s");
    let bytes = std::fs::read(attempt("1-sound").join("gpu_samples.parquet")).expect("kept");
    let samples = decode::<GpuSampleRow>(&bytes).expect("rows");
    assert!(samples.len() >= 8 && samples.iter().all(|sample| sample.power_mw == Some(500_000)));
    // The round keeps what the machine is, by which the row names it.
    let machine = std::fs::read(round.data().join("rounds/round=r/machines/embedded.json")).expect("kept");
    let digest = cacheon::artifact::digest::sha256(&machine).to_string();
    assert_eq!(read.machine_fingerprint, Some(digest));
}
