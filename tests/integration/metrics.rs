//! What those who watch the schedule daemon are told: metrics, health, readiness.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::schedule::wait_for;

/// A data directory and a pipeline that runs every minute.
struct Place(tempfile::TempDir);

const EVERY_MINUTE: &str = "name: quick
on: { schedule: [{ cron: '* * * * *' }] }
jobs: { a: { runs-on: controller, steps: [{ run: 'true' }] } }
";

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("temp dir"));
        std::fs::create_dir(place.path("pipelines")).expect("a folder");
        std::fs::create_dir(place.path("runners")).expect("a folder");
        place.pipeline(EVERY_MINUTE);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn pipeline(&self, text: &str) {
        std::fs::write(self.path("pipelines/quick.yml"), text).expect("written");
    }

    /// `schedule daemon` with more arguments; what it says goes into the file `said`.
    fn command(&self, args: &[&str]) -> Command {
        let said = File::create(self.path("said")).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_cacheon"));
        command.current_dir(self.0.path()).env_remove("CACHEON_DATA").env_remove("NOTIFY_SOCKET");
        command.env("NO_COLOR", "1").args(["schedule", "daemon"]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        command
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.path("said")).expect("what it said")
    }

    /// A daemon whose minute is a second long, and the port that it says.
    fn serving(&self) -> (Daemon, u16) {
        let rehearsed = ["--rehearse", &jiff::Timestamp::now().to_string(), "--rate", "60"];
        let mut command = self.command(&["--metrics", "127.0.0.1:0"]);
        let daemon = Daemon(command.args(rehearsed).spawn().expect("starts"));
        let port = wait_for("address", || {
            let said = self.said();
            let (_, rest) = said.split_once("metrics are at http://127.0.0.1:")?;
            rest.split_once("/metrics,")?.0.parse().ok()
        });
        (daemon, port)
    }
}

/// A daemon that is killed when it is dropped.
struct Daemon(Child);

impl Daemon {
    fn terminate(&self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, Signal::TERM).expect("told");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Where a test fails, it must not live on.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Asks as `GET path` does; gives the status, the head and the body.
fn get(port: u16, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a deadline");
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).expect("asks");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answers, and closes the connection");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, head.to_ascii_lowercase(), body.to_owned())
}

/// A sample: name and labels as they were sent, and the value.
type Samples = BTreeMap<String, f64>;

/// Takes a page apart by the format's grammar; a line that is not of it fails.
fn parse(page: &str) -> Samples {
    let is_name = |name: &str| {
        let mut bytes = name.bytes();
        bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    assert!(page.ends_with('\n'), "the last line ends too");
    let (mut samples, mut helped, mut typed) = (Samples::new(), BTreeSet::new(), BTreeMap::new());
    let mut last = "";
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').expect("a name and a text");
            assert!(is_name(name) && !text.is_empty() && helped.insert(name), "{line}");
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a name and a type");
            assert!(matches!(kind, "counter" | "gauge"), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(helped.contains(name) && typed.insert(name, kind).is_none(), "{line}");
            last = name;
            continue;
        }
        let end = line.find(['{', ' ']).expect("a name and a value");
        let name = &line[..end];
        assert_eq!(name, last, "the samples of a metric follow its type: {line}");
        let mut rest = &line[end..];
        if let Some(labels) = rest.strip_prefix('{') {
            rest = labels;
            loop {
                let (label, value) = rest.split_once("=\"").expect("a label");
                assert!(is_name(label), "{line}");
                let mut is_escaped = false;
                let end = value.char_indices().find(|(_, char)| {
                    let is_end = *char == '"' && !is_escaped;
                    assert!(!is_escaped || matches!(char, '\\' | '"' | 'n'), "{line}");
                    is_escaped = *char == '\\' && !is_escaped;
                    is_end
                });
                rest = &value[end.expect("the end of a value").0 + 1..];
                match rest.strip_prefix(',') {
                    Some(more) => rest = more,
                    None => break,
                }
            }
            rest = rest.strip_prefix('}').expect("the end of the labels");
        }
        let value: f64 = rest.strip_prefix(' ').expect("a space").parse().expect("a number");
        let key = line[..line.len() - rest.len()].to_owned();
        assert!(samples.insert(key, value).is_none(), "twice: {line}");
    }
    samples
}

#[test]
fn a_scrape_tells_what_the_schedules_came_to() {
    let place = Place::new();
    let (daemon, port) = place.serving();
    let done = "cacheon_rounds_total{pipeline=\"quick\",exit_code=\"0\"}";
    let samples = wait_for("round", || {
        let (status, head, body) = get(port, "/metrics");
        assert_eq!(status, 200);
        assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
        let samples = parse(&body);
        (samples.get(done).is_some_and(|count| *count >= 2.0)).then_some(samples)
    });
    let value = |name: &str| *samples.get(name).unwrap_or_else(|| panic!("no {name} in {samples:#?}"));
    let of_quick = |name: &str| value(&format!("{name}{{pipeline=\"quick\"}}"));
    assert!(value(&format!("cacheon_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))) > 0.0);
    let ticks =
        |outcome: &str| value(&format!("cacheon_ticks_total{{pipeline=\"quick\",outcome=\"{outcome}\"}}"));
    assert!(ticks("fired") + ticks("late") >= value(done));
    assert!(!samples.keys().any(|name| name.contains("outcome=\"waiting\"")));
    let looked = value("cacheon_last_look_timestamp_seconds");
    for name in ["cacheon_last_round_timestamp_seconds", "cacheon_last_success_timestamp_seconds"] {
        assert!(of_quick(name) <= looked && of_quick(name) > looked - 86400.0, "{name}: {looked}");
    }
    assert!(of_quick("cacheon_last_success_age_seconds") >= 0.0);
    assert!(
        of_quick("cacheon_next_tick_timestamp_seconds") > of_quick("cacheon_last_round_timestamp_seconds")
    );
    assert!((0.0..=1.0).contains(&of_quick("cacheon_round_running")));
    assert!(of_quick("cacheon_pipeline_broken") < 1.0);
    assert!(of_quick("cacheon_round_resumes_total") < 1.0);
    assert!(value("cacheon_disk_free_bytes") <= value("cacheon_disk_size_bytes"));
    assert!(value("cacheon_stage_duration_seconds{pipeline=\"quick\",stage=\"run\"}") > 0.0);
    for fault in ["submission", "infra", "pipeline", "operator", "unknown"] {
        assert!(value(&format!("cacheon_step_faults{{pipeline=\"quick\",fault=\"{fault}\"}}")) < 1.0);
    }
    // A step that fails is counted by its fault, a file that breaks is told of; a daemon that goes on is well.
    place.pipeline(&EVERY_MINUTE.replace("'true'", "'false'"));
    let faults = |samples: &Samples| -> f64 {
        samples
            .iter()
            .filter(|(name, _)| name.starts_with("cacheon_step_faults"))
            .map(|(_, count)| count)
            .sum()
    };
    wait_for("fault", || (faults(&parse(&get(port, "/metrics").2)) > 0.0).then_some(()));
    place.pipeline("name: quick\njbos: {}\n");
    let broken = "cacheon_pipeline_broken{pipeline=\"quick\"}";
    wait_for("broken pipeline", || {
        (parse(&get(port, "/metrics").2).get(broken).is_some_and(|flag| *flag > 0.0)).then_some(())
    });
    let samples = parse(&get(port, "/metrics").2);
    assert!((samples["cacheon_broken_files"] - 1.0).abs() < 0.5);
    assert_eq!((get(port, "/healthz").0, get(port, "/healthz").2), (200, "ok\n".to_owned()));
    assert_eq!(get(port, "/").0, 404);
    drop(daemon);
}

#[test]
fn those_who_say_nothing_hold_nobody_up_for_long() {
    let place = Place::new();
    let (_daemon, port) = place.serving();
    let silent: Vec<TcpStream> =
        (0..20).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("connects")).collect();
    assert_eq!(get(port, "/healthz").0, 200);
    drop(silent);
}

#[test]
fn an_address_that_cannot_be_had_ends_it_before_it_begins() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let check = |address: &str, expected: &str| {
        let status = place.command(&["--metrics", address]).status().expect("starts");
        let said = place.said();
        assert!(status.code() == Some(2) && said.contains(expected), "{address}: {status}: {said}");
        assert!(!place.path("data").exists(), "{address}");
    };
    check(&address, &format!("error: cannot serve metrics at {address}: Address already in use"));
    check("127.0.0.1", "invalid value '127.0.0.1' for '--metrics <ADDRESS:PORT>'");
    check("localhost:9464", "invalid value 'localhost:9464'");
    check("192.0.2.1:9464", "error: cannot serve metrics at 192.0.2.1:9464: ");
}

#[test]
fn an_address_that_others_reach_is_said() {
    let place = Place::new();
    let _daemon = Daemon(place.command(&["--metrics", "0.0.0.0:0"]).spawn().expect("starts"));
    wait_for("word", || place.said().contains("they are not for this machine alone").then_some(()));
}

#[test]
fn systemd_is_told_of_readiness_looks_and_the_stop() {
    let place = Place::new();
    place.pipeline("name: quick\njobs: { a: { runs-on: controller, steps: [{ run: 'true' }] } }\n");
    let path = place.path("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_mins(1))).expect("a deadline");
    let told = || {
        let mut bytes = [0; 256];
        let count = socket.recv(&mut bytes).expect("told in time");
        String::from_utf8_lossy(&bytes[..count]).trim_end().to_owned()
    };
    let mut daemon = Daemon(place.command(&[]).env("NOTIFY_SOCKET", &path).spawn().expect("starts"));
    assert_eq!([told(), told(), told()], ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
    daemon.terminate();
    wait_for("stop", || (told() == "STOPPING=1").then_some(()));
    assert_eq!(daemon.0.wait().expect("ends").code(), Some(130));
    // A socket that is gone ends nothing and is said once.
    drop(socket);
    let daemon = Daemon(place.command(&[]).env("NOTIFY_SOCKET", &path).spawn().expect("starts"));
    wait_for("beginning", || place.said().contains("next tick: none").then_some(()));
    assert_eq!(place.said().matches("cannot tell systemd").count(), 1, "{}", place.said());
    drop(daemon);
}
