//! Single servers at the engine's port: how each ends, what it may not, and that nothing of it stays.

use std::io::Write as _;
use std::time::Duration;

use cacheon::client::{Request, ask};
use cacheon::model::Fault;
use cacheon::pipeline::runner::Limits;
use cacheon::ports::Exit;
use serde_json::json;

use super::bench::{Bench, LOG_BYTES, Test};

pub(crate) const TESTS: &[Test] = &[
    ("servers::an_honest_server_answers_and_is_gone_when_stopped", an_honest_server_answers),
    ("servers::an_exit_code_arrives_with_the_last_words", exit_codes),
    ("servers::arguments_take_the_place_of_the_image_s_own", arguments),
    ("servers::a_program_that_cannot_run_is_the_submissions_fault", programs_that_cannot_run),
    ("servers::more_memory_than_allowed_is_the_end", memory),
    ("servers::who_ignores_sigterm_is_killed", sigterm),
    ("servers::nothing_of_the_image_can_be_written", writes),
    ("servers::no_more_processes_than_allowed", forks),
    ("servers::a_flooded_log_is_cut_and_its_end_known", floods),
    ("servers::who_floods_waits", flood_waits),
    ("servers::no_rights_are_left", rights),
    ("servers::nothing_can_be_reached_from_inside", reach),
    ("servers::two_at_the_same_address_are_two", two),
    ("servers::a_server_that_is_dropped_is_removed", dropped),
];

const SOON: Duration = Duration::from_secs(30);

fn ended(code: i32) -> Exit {
    Exit { code: Some(code), ..Exit::default() }
}

fn an_honest_server_answers(bench: &'static Bench) {
    let image = bench.image("honest", &["/bin/cacheon", "reference", "serve"]);
    let mut running = bench.launch(&image, Limits::default()).expect("starts");
    let (connector, path) = (running.server().connector(), running.server().health_path().to_owned());
    let health = Request { path, body: None, within: SOON, max_bytes: 1 << 10 };
    let healthy = async {
        loop {
            if ask(&*connector, &health).await.is_ok_and(|reply| reply.status == 200) {
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

fn exit_codes(bench: &'static Bench) {
    for code in [0, 3, 255] {
        let mut running = bench.opponent(&["exit", &code.to_string()], Limits::default());
        assert_eq!(running.exit(SOON), ended(code));
        assert!(running.server().log_tail().contains("these are my last words"));
        running.stop(Duration::from_secs(1));
        assert!(running.is_gone());
    }
}

fn arguments(bench: &'static Bench) {
    let image =
        bench.configured("arguments", &json!({"Entrypoint": ["/bin/opponent"], "Cmd": ["exit", "1"]}));
    let exit = |args: &[&str]| {
        let mut running = bench.launch_with(args, &image, Limits::default()).expect("starts");
        let exit = running.exit(SOON);
        running.stop(Duration::from_secs(1));
        exit
    };
    assert_eq!(exit(&[]), ended(1));
    assert_eq!(exit(&["exit", "3"]), ended(3));
}

fn programs_that_cannot_run(bench: &'static Bench) {
    for (name, program, code) in [("missing", "/bin/nothing", 127), ("no-program", "/bin/text", 126)] {
        let mut running = bench.launch(&bench.image(name, &[program]), Limits::default()).expect(name);
        assert_eq!(running.exit(SOON), ended(code), "{name}");
        assert!(running.log().contains(program), "{name}: {}", running.log());
    }
    let with = |key: &str, value: serde_json::Value| {
        let mut config = json!({"Entrypoint": ["/bin/opponent", "sleep"]});
        config[key] = value;
        config
    };
    let volume = with("Volumes", json!({"/data": {}}));
    let preload = with("Env", json!(["LD_PRELOAD=/bin/opponent"]));
    for (name, config) in [("no-command", json!({})), ("volume", volume), ("preload", preload)] {
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
    let exit = greedy.exit(SOON);
    assert_eq!(exit, Exit { is_out_of_memory: true, ..ended(137) }, "{}", greedy.log());
    assert!(exit.to_string().contains("limits.memory-mib"), "{exit}");
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
    assert_eq!(found, ["wrote /dev/shm", "wrote /tmp"]);
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
    let mut running = bench.opponent(&["flood", "6"], Limits::default());
    assert_eq!(running.exit(Duration::from_mins(1)), ended(0));
    running.stop(Duration::from_secs(1));
    let log = running.log();
    let kept = log.len() as u64;
    assert!((LOG_BYTES..LOG_BYTES + 200).contains(&kept), "{kept} bytes");
    assert!(log.contains("more bytes were not kept"), "{}", &log[log.len() - 200..]);
}

/// Processor time of a process and its threads so far, in ticks of 10 ms.
fn ticks(pid: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

/// One that would write for ever costs nobody anything.
fn flood_waits(bench: &'static Bench) {
    let mut running = bench.opponent(&["flood", "1048576"], Limits::default());
    let daemon = bench.daemon();
    // The burst is over.
    assert!(running.still_runs(Duration::from_secs(3)));
    let before = (ticks(&daemon), ticks("self"));
    let watched = Duration::from_secs(5);
    assert!(running.still_runs(watched));
    let shares = [ticks(&daemon) - before.0, ticks("self") - before.1];
    let [daemon, own] = shares.map(|ticks| ticks as f64 / watched.as_secs_f64());
    // A figure for people, who ask for it by `--nocapture`.
    let words = format!("a flood costs the daemon {daemon:.1}% of a processor, and this program {own:.1}%");
    writeln!(std::io::stdout(), "{words}").expect("stdout");
    assert!(running.stop(Duration::from_secs(1)) < SOON);
    assert!(running.log().contains("more bytes were not kept"));
}

fn rights(bench: &'static Bench) {
    let mut running = bench.opponent(&["show-rights"], Limits::default());
    assert_eq!(running.exit(SOON), ended(0));
    let none = "0000000000000000";
    let expected = format!("CapPrm: {none}\nCapEff: {none}\nCapBnd: {none}\nNoNewPrivs: 1\nSeccomp: 2\n");
    assert_eq!(running.log(), expected);
    // Nobody, whoever the image says it is.
    let config = json!({"Entrypoint": ["/bin/opponent", "show-user"], "User": "0:0"});
    let mut root = bench.launch(&bench.configured("root", &config), Limits::default()).expect("starts");
    assert_eq!(root.exit(SOON), ended(0));
    assert_eq!(root.log(), "Uid: 10001 10001 10001 10001\nGid: 10001 10001 10001 10001\n");
    let host = running.inspect().host_config.expect("a configuration");
    assert_eq!(
        (host.privileged, host.readonly_rootfs, host.ipc_mode.as_deref(), host.pids_limit),
        (Some(false), Some(true), Some("private"), Some(16_384))
    );
}

fn reach(bench: &'static Bench) {
    // A listener of this machine, by all of its addresses: one on a bridge would be reached, as the control is from here.
    let listener = std::net::TcpListener::bind(("0.0.0.0", 0)).expect("listens");
    let port = listener.local_addr().expect("an address").port();
    std::net::TcpStream::connect(("127.0.0.1", port)).expect("the control is reached");
    let inside = [format!("127.0.0.1:{port}")];
    let outside = ["172.17.0.1", "192.0.2.1", "169.254.169.254", "8.8.8.8", "[2001:db8::1]"]
        .map(|host| format!("{host}:{port}"));
    let addresses: Vec<&str> = inside.iter().chain(&outside).map(String::as_str).collect();
    let command = [&["/bin/opponent", "reach"], &addresses[..]].concat();
    let mut running = bench.launch(&bench.image("reach", &command), Limits::default()).expect("starts");
    assert_eq!(running.exit(SOON), ended(0));
    let log = running.log();
    assert!(!log.contains("reached"), "{log}");
    assert!(log.contains("127.0.0.1:") && log.contains("ConnectionRefused"), "{log}");
    assert_eq!(
        log.matches("NetworkUnreachable").count() + log.matches("AddrNotAvailable").count(),
        5,
        "{log}"
    );
    assert!(log.ends_with("interfaces: lo\n"), "{log}");
    let host = running.inspect().host_config.expect("a configuration");
    assert_eq!(host.network_mode.as_deref(), Some("none"));
}

/// Every container listens at the same address; each is reached by its own way, and none once it is gone.
fn two(bench: &'static Bench) {
    let image = bench.image("two", &["/bin/cacheon", "reference", "serve"]);
    let mut servers = [(); 2].map(|()| bench.launch(&image, Limits::default()).expect("starts"));
    let ways = servers.each_mut().map(|running| running.server().connector());
    assert_eq!(ways[0].address(), ways[1].address());
    let health = Request { path: "/health".to_owned(), body: None, within: SOON, max_bytes: 1 << 10 };
    let is_healthy = |way: usize| {
        let asked = ask(&*ways[way], &health);
        bench.runtime.block_on(asked).is_ok_and(|reply| reply.status == 200)
    };
    let started = std::time::Instant::now();
    while !(is_healthy(0) && is_healthy(1)) {
        assert!(started.elapsed() < SOON, "never healthy");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    servers[0].stop(Duration::from_secs(5));
    assert!(!is_healthy(0) && is_healthy(1));
    servers[1].stop(Duration::from_secs(5));
    assert!(!is_healthy(1));
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
