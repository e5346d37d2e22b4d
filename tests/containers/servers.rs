//! Single servers at the engine's port: how each ends, what it may not, and that nothing of it stays.

use std::time::Duration;

use cacheon::artifact::digest::sha256;
use cacheon::model::Fault;
use cacheon::pipeline::runner::Limits;
use cacheon::ports::Exit;
use serde_json::json;

use super::bench::{Bench, LOG_BYTES, Test};
use super::image::{Pushed, Registry};

pub(crate) const TESTS: &[Test] = &[
    ("servers::an_honest_server_answers_and_is_gone_when_stopped", an_honest_server_answers),
    ("servers::a_pull_that_fails_says_whose_fault_it_is", pulls_that_fail),
    ("servers::an_exit_code_arrives_with_the_last_words", exit_codes),
    ("servers::a_program_that_cannot_run_is_the_submissions_fault", programs_that_cannot_run),
    ("servers::more_memory_than_allowed_is_the_end", memory),
    ("servers::who_ignores_sigterm_is_killed", sigterm),
    ("servers::nothing_of_the_image_can_be_written", writes),
    ("servers::no_more_processes_than_allowed", forks),
    ("servers::a_flooded_log_is_cut_and_its_end_known", floods),
    ("servers::no_rights_are_left", rights),
    ("servers::a_server_that_is_dropped_is_removed", dropped),
];

const SOON: Duration = Duration::from_secs(30);

fn ended(code: i32) -> Exit {
    Exit { code: Some(code), signal: None }
}

fn an_honest_server_answers(bench: &'static Bench) {
    let image = bench.image("honest", &["/bin/cacheon", "reference", "serve"]);
    let mut running = bench.launch(&image, Limits::default()).expect("starts");
    let url = format!("http://{}{}", running.server().address(), running.server().health_path());
    let healthy = async {
        loop {
            let answer = reqwest::get(&url).await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = bench.runtime.block_on(async { tokio::time::timeout(SOON, healthy).await });
    assert!(waited.is_ok(), "never healthy: {}", running.log());
    let used = bench.runtime.block_on(running.server().cpu_time());
    assert!(used.is_some_and(|used| used > Duration::from_millis(10)), "{used:?}");
    let found = running.inspect();
    assert_eq!(found.state.and_then(|state| state.running), Some(true));
    assert!(running.stop(Duration::from_secs(10)) < Duration::from_secs(9), "SIGTERM was heard");
    assert!(running.is_gone());
}

fn pulls_that_fail(bench: &'static Bench) {
    let there = bench.image("pulled", &["/bin/opponent", "sleep"]);
    let content = bench.pull(&there).expect("the control is pulled");
    assert_eq!(bench.pull(&there).expect("again"), content);
    // The same under another name is the same content.
    let again = bench.configured(
        "pulled-again",
        &json!({"Entrypoint": ["/bin/opponent", "sleep"], "Env": ["IMAGE=pulled"], "Labels": {"by": "another"}}),
    );
    assert_ne!(again.digest, there.digest);
    assert_eq!(bench.pull(&again).expect("pulled"), content);

    let nobody = Registry::new("127.0.0.1:9".to_owned());
    let cases = [
        (
            "no such digest",
            Pushed { digest: sha256(b"another"), ..there.clone() },
            Fault::Submission,
            "image-unavailable",
        ),
        (
            "no such repository",
            Pushed { image: bench.registry.named("nothing"), ..there.clone() },
            Fault::Submission,
            "image-unavailable",
        ),
        (
            "no registry",
            Pushed { image: nobody.named("pulled"), ..there.clone() },
            Fault::Infra,
            "container-engine",
        ),
        (
            "other layers than it says",
            bench.mislabelled("mislabelled", &sha256(b"another layer")),
            Fault::Submission,
            "image-invalid",
        ),
    ];
    for (name, image, fault, code) in cases {
        let error = bench.pull(&image).expect_err(name);
        let reason = error.reason();
        assert_eq!((reason.fault, reason.code.as_str()), (fault, code), "{name}: {error}");
    }
}

fn exit_codes(bench: &'static Bench) {
    for code in [0, 3, 255] {
        let mut running = bench.opponent(&["exit", &code.to_string()], Limits::default());
        assert_eq!(running.exit(SOON), ended(code));
        assert!(running.server().log_tail().contains("these are my last words"));
        running.stop(Duration::from_secs(1));
        assert!(running.is_gone());
    }
}

fn programs_that_cannot_run(bench: &'static Bench) {
    for (name, program, code) in [("missing", "/bin/nothing", 127), ("no-program", "/bin/text", 126)] {
        let mut running = bench.launch(&bench.image(name, &[program]), Limits::default()).expect(name);
        assert_eq!(running.exit(SOON), ended(code), "{name}");
        assert!(running.log().contains(program), "{name}: {}", running.log());
    }
    let nobody = json!({"Entrypoint": ["/bin/opponent", "sleep"], "User": "nobody-knows-me"});
    for (name, config) in [("no-command", json!({})), ("no-user", nobody)] {
        let Err(error) = bench.launch(&bench.configured(name, &config), Limits::default()) else {
            panic!("{name} was started")
        };
        let reason = error.reason();
        assert_eq!(
            (reason.fault, reason.code.as_str()),
            (Fault::Submission, "image-invalid"),
            "{name}: {error}"
        );
    }
}

fn memory(bench: &'static Bench) {
    let limits = Limits { memory_mib: Some(64), ..Limits::default() };
    let mut modest = bench.opponent(&["take-memory", "8"], limits.clone());
    assert_eq!(modest.exit(SOON), ended(0), "{}", modest.log());
    let mut greedy = bench.opponent(&["take-memory", "4096"], limits);
    assert_eq!(greedy.exit(SOON), ended(137), "{}", greedy.log());
    let state = greedy.inspect().state.expect("a state");
    assert_eq!(state.oom_killed, Some(true));
}

fn sigterm(bench: &'static Bench) {
    let grace = Duration::from_secs(2);
    let mut polite = bench.opponent(&["sleep"], Limits::default());
    polite.wait_for("ready");
    assert!(polite.stop(Duration::from_secs(20)) < Duration::from_secs(10), "it was not waited for");
    let mut deaf = bench.opponent(&["ignore-sigterm"], Limits::default());
    deaf.wait_for("ready");
    let took = deaf.stop(grace);
    assert!(took >= grace && took < grace + Duration::from_secs(5), "{took:?}");
    assert!(polite.is_gone() && deaf.is_gone());
}

fn writes(bench: &'static Bench) {
    let mut running = bench.opponent(&["write-everywhere"], Limits::default());
    assert_eq!(running.exit(SOON), ended(0));
    let log = running.log();
    let mut found: Vec<&str> = log.lines().collect();
    found.sort_unstable();
    // In memory, each its own mount, and gone with the container.
    assert_eq!(found, ["wrote /dev", "wrote /dev/shm", "wrote /tmp"]);
}

fn forks(bench: &'static Bench) {
    let limits = Limits { pids: Some(64), ..Limits::default() };
    let mut few = bench.opponent(&["fork", "8"], limits.clone());
    assert_eq!(few.exit(SOON), ended(0));
    assert!(few.log().contains("started 8"), "{}", few.log());
    let mut many = bench.opponent(&["fork", "1000"], limits);
    assert_eq!(many.exit(SOON), ended(0));
    let log = many.log();
    assert!(log.contains("refused: "), "{log}");
    let started = log.lines().find_map(|line| line.strip_prefix("started ")?.parse::<u32>().ok());
    assert!(started.is_some_and(|started| (32..64).contains(&started)), "{log}");
    many.stop(Duration::from_secs(1));
    assert!(many.is_gone());
}

fn floods(bench: &'static Bench) {
    let mut running = bench.opponent(&["flood", "64"], Limits::default());
    assert_eq!(running.exit(Duration::from_mins(1)), ended(0));
    running.stop(Duration::from_secs(1));
    let log = running.log();
    let kept = log.len() as u64;
    assert!((LOG_BYTES..LOG_BYTES + 200).contains(&kept), "{kept} bytes");
    assert!(log.contains("more bytes were not kept"), "{}", &log[log.len() - 200..]);
}

fn rights(bench: &'static Bench) {
    let mut running = bench.opponent(&["show-rights"], Limits::default());
    assert_eq!(running.exit(SOON), ended(0));
    let none = "0000000000000000";
    let expected = format!("CapPrm: {none}\nCapEff: {none}\nCapBnd: {none}\nNoNewPrivs: 1\nSeccomp: 2\n");
    assert_eq!(running.log(), expected);
    let host = running.inspect().host_config.expect("a configuration");
    assert_eq!(
        (host.privileged, host.readonly_rootfs, host.ipc_mode.as_deref(), host.pids_limit),
        (Some(false), Some(true), Some("private"), Some(16_384))
    );
}

fn dropped(bench: &'static Bench) {
    let mut running = bench.opponent(&["sleep"], Limits::default());
    running.wait_for("ready");
    assert!(!running.is_gone());
    running.forget();
    let started = std::time::Instant::now();
    while !running.is_gone() {
        assert!(started.elapsed() < SOON, "left behind");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}
