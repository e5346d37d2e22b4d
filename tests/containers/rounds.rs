//! Whole rounds with `engine: docker`: the demo's pipeline, few prompts, images of the registry.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use cacheon::artifact::digest::sha256;
use serde_json::Value;

use super::bench::{Bench, Test};
use super::image::{Pushed, Registry};
use super::round::{Round, root};

pub(crate) const TESTS: &[Test] = &[
    ("rounds::an_honest_submission_is_measured_and_published", honest),
    ("rounds::what_fails_fails_for_its_own_reason", failing),
];

pub(crate) struct Arena {
    pub(crate) round: Round,
    bench: &'static Bench,
    committed: Vec<(&'static str, Pushed)>,
}

impl Arena {
    pub(crate) fn new(bench: &'static Bench) -> Self {
        let round = Round::new();
        let model = round.dir.path().join("model");
        let runner = format!(
            "name: embedded\nplace: local\nengine: docker\nmodel-dir: {}\ncapacity: 1\nlimits: {{ memory-mib: 512, pids: 256, log-kib: 64 }}\n",
            model.display()
        );
        std::fs::write(round.dir.path().join("runners/embedded.yml"), runner).expect("runner");
        Self { round, bench, committed: Vec::new() }
    }

    /// Commits an image that runs this command.
    pub(crate) fn commit(&mut self, name: &'static str, command: &[&str]) {
        let image = self.bench.image(name, command);
        self.committed.push((name, image));
    }

    fn hotkey(place: usize) -> String {
        let letter = char::from(b"ABCDEFGHJKLMNPQRSTUVWXYZ"[place]);
        format!("5{}", letter.to_string().repeat(47))
    }

    /// Runs the demo with these commitments, and with other words where it is told so.
    fn run(&self, prompts: u32, edits: &[(&str, &str)]) -> Output {
        self.prepare(edits);
        let output = self.command(prompts).output().expect("starts");
        let left = self.containers();
        assert!(left.is_empty(), "left behind: {left:?}");
        output
    }

    /// The containers of this round, running or not.
    pub(crate) fn containers(&self) -> Vec<String> {
        self.bench.containers(self.round.dir.path())
    }

    /// Writes the demo with these commitments, and with other words where it is told so.
    pub(crate) fn prepare(&self, edits: &[(&str, &str)]) {
        let reference = |name: &str, prefill: &str| {
            self.bench.image(name, &["/bin/cacheon", "reference", "serve", "--prefill", prefill])
        };
        let (baseline, scorer) = (reference("baseline", "token"), reference("scorer", "block"));
        let mut text = std::fs::read_to_string(root().join("pipelines/demo.yml")).expect("the demo");
        for (name, pushed) in [("embedded/baseline", &baseline), ("embedded/scorer", &scorer)] {
            let mut rest = std::mem::take(&mut text);
            while let Some((before, after)) = rest.split_once(&format!("image: {name}\n")) {
                let (indent, after) = after.split_once("digest: ").expect("a digest");
                let (_, after) = after.split_once('\n').expect("a line");
                write!(text, "{before}image: {}\n{indent}digest: {}\n", pushed.image, pushed.digest)
                    .expect("text");
                rest = after.to_owned();
            }
            text.push_str(&rest);
        }
        for (from, to) in edits {
            assert!(text.contains(from), "the demo has no `{from}`");
            text = text.replace(from, to);
        }
        let at = |name: &str| self.round.dir.path().join(name);
        std::fs::write(at("containers.yml"), text).expect("pipeline");
        let mut commitments = "block: test\ncommitments:\n".to_owned();
        for (place, (_, pushed)) in self.committed.iter().enumerate() {
            let (hotkey, block) = (Self::hotkey(place), 100 + place);
            let (image, digest) = (&pushed.image, &pushed.digest);
            writeln!(
                commitments,
                "  - {{ hotkey: {hotkey}, uid: {place}, block: {block}, image: \"{image}\", digest: \"{digest}\" }}"
            )
            .expect("text");
        }
        std::fs::write(at("commitments.yml"), commitments).expect("commitments");
    }

    /// Runs what was prepared.
    pub(crate) fn command(&self, prompts: u32) -> Command {
        self.command_at(&self.round.data(), prompts)
    }

    /// Runs what was prepared, into this data directory.
    pub(crate) fn command_at(&self, data: &Path, prompts: u32) -> Command {
        let at = |name: &str| self.round.dir.path().join(name);
        let prompts = format!("prompts={prompts}");
        let file = format!("commitments={}", at("commitments.yml").display());
        let args = ["run", "--round", "r", "--seed", "1", "-i", &prompts, "-i", &file];
        let mut command = self.with_daemon(Round::cacheon_at(data, &args));
        command.arg("--runners").arg(at("runners")).arg(at("containers.yml"));
        command
    }

    /// Another verb, with the daemon.
    pub(crate) fn again(&self, args: &[&str]) -> Command {
        self.with_daemon(self.round.cacheon(args))
    }

    /// Scratch directories are of this round then, and so its containers can be told from others.
    fn with_daemon(&self, mut command: Command) -> Command {
        command.env("DOCKER_HOST", &self.bench.docker_host).env("TMPDIR", self.round.dir.path());
        command
    }

    /// The row of one in the leaderboard.
    pub(crate) fn row(&self, name: &str) -> Value {
        let place = self.committed.iter().position(|(found, _)| *found == name).expect("committed");
        let hotkey = Self::hotkey(place);
        let rows = self.round.rows("SELECT * FROM leaderboard");
        rows.into_iter().find(|row| row["hotkey"] == hotkey.as_str()).expect("everybody has a row")
    }
}

impl Arena {
    /// Asserts whose fault one's first read was, and why.
    #[track_caller]
    fn check(&self, name: &str, expected: (&str, &str), detail: &str) {
        let place = self.committed.iter().position(|(found, _)| *found == name).expect("committed");
        let sql = format!(
            "SELECT fault, reason, detail FROM reads WHERE hotkey = '{}' ORDER BY read_key",
            Self::hotkey(place)
        );
        let rows = self.round.rows(&sql);
        let read = rows.first().unwrap_or_else(|| panic!("{name} has no read"));
        let found = (read["fault"].as_str().unwrap_or_default(), read["reason"].as_str().unwrap_or_default());
        assert_eq!(found, expected, "{name}: {read}");
        assert!(read["detail"].as_str().is_some_and(|text| text.contains(detail)), "{name}: {read}");
    }
}

/// A machine that also runs a daemon, a registry and this test is not idle, and what is measured here decides nothing.
pub(crate) const BUSY: &[(&str, &str)] = &[("max-foreign-cpu: 0.2", "max-foreign-cpu: 1")];

fn honest(bench: &'static Bench) {
    let mut arena = Arena::new(bench);
    arena.commit("honest", &["/bin/cacheon", "reference", "serve", "--prefill", "block"]);
    let output = arena.run(4, BUSY);
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{words}");
    let row = arena.row("honest");
    let standing = row["standing"].as_str().expect("text");
    let is_held = standing == "held" && row["reason"] == "no-decision";
    assert!(is_held || ["scored", "not-faster"].contains(&standing), "{row:#}");
    let reads = arena.round.rows("SELECT arm, status, failed_requests FROM reads");
    assert!(reads.iter().any(|read| read["arm"] == "candidate"), "{reads:?}");
    assert!(
        reads.iter().all(|read| read["status"] == "measured" && read["failed_requests"] == 0),
        "{reads:?}"
    );
    let verdicts = arena.round.rows("SELECT outcome FROM verdicts");
    assert!(!verdicts.is_empty() && verdicts.iter().all(|row| row["outcome"] != "fail"), "{verdicts:?}");
}

/// What is committed, and of its read the reason and words of the detail; the fault is its own.
type Case = (&'static str, &'static [&'static str], &'static str, &'static str);

const FAILING: &[Case] = &[
    ("exits", &["/bin/opponent", "exit", "3"], "server-exited-before-ready", "exit code 3 "),
    ("missing", &["/bin/nothing"], "server-exited-before-ready", "a program that is not there"),
    (
        "greedy",
        &["/bin/opponent", "take-memory", "4096"],
        "server-exited-before-ready",
        "`limits.memory-mib`",
    ),
    // The first request is the boot's, two warm up.
    (
        "hoards",
        &["/bin/cacheon", "reference", "serve", "--cheat", "hoard-mid-stream", "--trigger-stream", "2"],
        "server-exited",
        "`limits.memory-mib`",
    ),
    (
        "crashes",
        &["/bin/cacheon", "reference", "serve", "--cheat", "crash-mid-stream", "--trigger-stream", "4"],
        "server-exited",
        "exit code 139, that of a program ended by signal 11",
    ),
    // Never ready, and killed in time although it does not hear.
    ("deaf", &["/bin/opponent", "ignore-sigterm"], "not-ready-in-time", "did not answer 200"),
];

fn failing(bench: &'static Bench) {
    let mut arena = Arena::new(bench);
    for (name, command, ..) in FAILING {
        arena.commit(name, command);
    }
    let there = arena.committed[0].1.clone();
    arena.committed.push(("absent", Pushed { digest: sha256(b"nothing"), ..there }));
    let nowhere = Registry::new("127.0.0.1:9".to_owned()).named("exits");
    arena.committed.push(("unreachable", Pushed { image: nowhere, digest: sha256(b"nowhere") }));
    let few = [BUSY, &[("max-tokens: 128", "max-tokens: 16")]].concat();
    let output = arena.run(1, &few);
    let words = String::from_utf8_lossy(&output.stderr);
    for (name, _, reason, detail) in FAILING {
        arena.check(name, ("submission", reason), detail);
    }
    arena.check("absent", ("submission", "image-unavailable"), "answers 404 Not Found");
    // Whose fault that is nobody can tell: it is nobody's, and costs the others nothing.
    arena.check("unreachable", ("infra", "registry-unavailable"), "Connection refused");
    for (name, ..) in FAILING {
        assert_eq!(arena.row(name)["standing"], "failed", "{words}");
    }
    let standings = ["absent", "unreachable"].map(|name| arena.row(name)["standing"].clone());
    assert_eq!(standings, ["failed", "held"], "{words}");
}
