//! A round of opponents: images of the reference server, of a proxy in front of it, or of anything else, committed in the
//! order in which they are given.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use cacheon::artifact::digest::sha256;
use serde_json::{Value, json};

use super::round::{Round, root};

/// What became of one that was committed.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) standing: String,
    pub(crate) reason: String,
    pub(crate) detail: String,
    pub(crate) share: f64,
}

pub(crate) struct Arena {
    pub(crate) round: Round,
    baseline: String,
    scorer: String,
    /// Name of the image, name of its manifest, digest.
    committed: Vec<(&'static str, &'static str, String)>,
}

/// The program in front of which the proxy stands.
fn program() -> &'static str {
    env!("CARGO_BIN_EXE_cacheon")
}

/// The proxy, which the build of all targets leaves beside this test's own folder.
fn proxy() -> PathBuf {
    let own = std::env::current_exe().expect("this test");
    let built =
        own.parent().and_then(std::path::Path::parent).expect("a build folder").join("examples/attack-proxy");
    assert!(built.is_file(), "{} is not there: cargo build --example attack-proxy", built.display());
    built
}

impl Arena {
    pub(crate) fn new() -> Self {
        Self::with_scorer("--prefill block")
    }

    /// With another scorer than the honest one.
    pub(crate) fn with_scorer(scorer: &str) -> Self {
        let round = Round::new();
        std::fs::create_dir_all(round.dir.path().join("images/embedded")).expect("images");
        let runner = round.dir.path().join("runners/embedded.yml");
        let text = std::fs::read_to_string(&runner).expect("runner");
        let images = round.dir.path().join("images").display().to_string();
        std::fs::write(&runner, text.replace("data/demo/images", &images)).expect("runner");
        let mut arena = Self { round, baseline: String::new(), scorer: String::new(), committed: Vec::new() };
        arena.baseline = arena.reference("baseline", "--prefill token");
        arena.scorer = arena.reference("scorer", scorer);
        arena
    }

    /// Writes an image, and gives its digest.
    fn image(&self, name: &str, manifest: &Value) -> String {
        let text = manifest.to_string();
        let path = self.round.dir.path().join(format!("images/embedded/{name}.json"));
        std::fs::write(path, &text).expect("image");
        sha256(text.as_bytes()).to_string()
    }

    fn reference(&self, name: &str, args: &str) -> String {
        let args: Vec<&str> = args.split(' ').collect();
        let command = ["cacheon", "reference", "serve"];
        self.image(name, &json!({"description": name, "command": command, "args": args}))
    }

    /// Commits an image of the reference server.
    pub(crate) fn serve(&mut self, name: &'static str, args: &str) {
        let digest = self.reference(name, args);
        self.committed.push((name, name, digest));
    }

    /// Has the baseline asked through the proxy, which passes all of it on and tells what was asked and answered, and states a floor
    /// of the machine that no honest answer comes near: 0.4 ms a pass, five tokens drafted.
    pub(crate) fn with_told_baseline(mut self) -> Self {
        let runner = self.round.dir.path().join("runners/embedded.yml");
        let text = std::fs::read_to_string(&runner).expect("runner");
        let stated = "parameters: 20e6\n  bytes-per-parameter: 1\n  gpus: 1\n  gpu-cache: 0 B\n  gpu-bandwidth: 50 GB/s\n  \
                      gpu-compute: 1 PFLOP/s\n  operations-per-token: 1e6\n";
        assert!(text.contains("facts: measured\n"), "{text}");
        std::fs::write(&runner, text.replace("facts: measured\n", stated)).expect("runner");
        self.baseline = self.proxied("baseline", "tell");
        self
    }

    /// Commits an image of the proxy before the fastest honest server there is.
    pub(crate) fn proxy(&mut self, name: &'static str, cheat: &str) {
        let digest = self.proxied(name, cheat);
        self.committed.push((name, name, digest));
    }

    /// Writes an image of the proxy, and gives its digest.
    fn proxied(&self, name: &str, cheat: &str) -> String {
        let memory = self.round.dir.path().join("memory");
        std::fs::create_dir_all(&memory).expect("memory");
        let args = [
            "--cheat",
            cheat,
            "--memory",
            &memory.display().to_string(),
            "--program",
            program(),
            "--",
            "--prefill",
            "block",
        ];
        // Each is an image of its own, whatever it does.
        let env = json!({"IMAGE": name});
        let manifest = json!({"description": name, "command": [proxy()], "args": args, "env": env});
        self.image(name, &manifest)
    }

    /// Commits an image of a shell script, after which the honest server is started.
    pub(crate) fn script(&mut self, name: &'static str, script: &str) {
        let script = format!("{script}\nexec \"$0\" reference serve --prefill block");
        let manifest = json!({"description": name, "command": ["bash", "-c", script, program()]});
        let digest = self.image(name, &manifest);
        self.committed.push((name, name, digest));
    }

    /// Commits the digest of another one under a name of its own, at which there may be nothing.
    pub(crate) fn claim(&mut self, name: &'static str, other: &str) {
        let digest =
            self.committed.iter().find(|(name, ..)| *name == other).map(|(_, _, digest)| digest.clone());
        self.committed.push((name, name, digest.expect("committed")));
    }

    /// Commits the same server again under a manifest that differs in what has no effect.
    pub(crate) fn copy(&mut self, name: &'static str, args: &str) {
        self.serve(name, args);
    }

    /// Puts the last one that was committed before all others.
    pub(crate) fn goes_first(&mut self) {
        self.committed.rotate_right(1);
    }

    fn hotkey(place: usize) -> String {
        let letter = char::from(b"ABCDEFGHJKLMNPQRSTUVWXYZ"[place]);
        format!("5{}", letter.to_string().repeat(47))
    }

    /// The demo with these opponents, and with other words where it is told so.
    fn pipeline(&self, edits: &[(&str, &str)]) -> PathBuf {
        let demo = std::fs::read_to_string(root().join("pipelines/demo.yml")).expect("the demo");
        let mut after = "";
        let lines: Vec<String> = demo
            .lines()
            .map(|line| {
                let line = match line.split_once("digest: sha256:") {
                    Some((indent, _)) if after == "scorer" => format!("{indent}digest: {}", self.scorer),
                    Some((indent, _)) => format!("{indent}digest: {}", self.baseline),
                    None => line.to_owned(),
                };
                after = if line.contains("embedded/scorer") { "scorer" } else { "" };
                line
            })
            .collect();
        let mut text = lines.join("\n");
        for (from, to) in edits {
            assert!(text.contains(from), "the demo has no `{from}`");
            text = text.replace(from, to);
        }
        let path = self.round.dir.path().join("attacks.yml");
        std::fs::write(&path, text).expect("pipeline");
        path
    }

    /// Runs the round to its end.
    pub(crate) fn run(&self, prompts: u32, edits: &[(&str, &str)]) -> Output {
        self.command(prompts, edits).output().expect("starts")
    }

    /// Directory of the attempt that asks the first submission's prompts, once it may have.
    pub(crate) fn first_asked(&self) -> PathBuf {
        let legs = self.round.data().join("rounds/round=r/jobs/measure");
        let asked = || {
            let legs = std::fs::read_dir(&legs).ok()?.flatten();
            legs.map(|leg| leg.path().join("attempt-1")).find(|attempt| attempt.join("asked.json").exists())
        };
        let started = std::time::Instant::now();
        loop {
            if let Some(attempt) = asked() {
                return attempt;
            }
            assert!(started.elapsed().as_secs() < 60, "no submission was asked");
            // A loop without a pause would use the machine that is to be idle.
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// Asserts that the first read was lost and another one measured for it, with prompts of its own beside baselines that were
    /// asked these.
    #[track_caller]
    pub(crate) fn was_repeated(&self, reason: &str) {
        let reads = self.round.rows(
            "SELECT read_key, status, reason, attempt, repeats FROM reads WHERE arm = 'candidate' AND read_key NOT LIKE 'confirm%'",
        );
        let [first, repeat] = &reads[..] else { panic!("{reads:?}") };
        assert_eq!((&first["status"], &first["reason"]), (&json!("failed"), &json!(reason)), "{reads:?}");
        assert_eq!(
            (&repeat["status"], &repeat["repeats"]),
            (&json!("measured"), &first["read_key"]),
            "{reads:?}"
        );
        let beside = self.round.rows(
            "SELECT count(*) AS n FROM requests c JOIN requests b ON b.prompt_index = c.prompt_index AND b.read_key <> c.read_key JOIN reads r ON r.read_key = c.read_key WHERE r.repeats IS NOT NULL",
        );
        let asked = self.round.rows(
            "SELECT count(*) AS n FROM requests c JOIN reads r ON r.read_key = c.read_key WHERE r.repeats IS NOT NULL",
        );
        let [beside, asked] = [beside, asked].map(|rows| rows[0]["n"].as_u64().expect("a count"));
        assert!(asked > 0 && beside == 2 * asked, "{beside} answers of the baseline to {asked} prompts");
        let missing = self.round.rows("SELECT name FROM accounts WHERE missing > 0");
        assert!(missing.is_empty(), "{missing:?}");
    }

    pub(crate) fn command(&self, prompts: u32, edits: &[(&str, &str)]) -> Command {
        let mut commitments = "block: test\ncommitments:\n".to_owned();
        for (place, (name, _, digest)) in self.committed.iter().enumerate() {
            let (hotkey, block) = (Self::hotkey(place), 100 + place);
            writeln!(
                commitments,
                "  - {{ hotkey: {hotkey}, uid: {place}, block: {block}, image: embedded/{name}, digest: \"{digest}\" }}"
            )
            .expect("text");
        }
        let file = self.round.dir.path().join("commitments.yml");
        std::fs::write(&file, commitments).expect("commitments");
        let (prompts, commitments) =
            (format!("prompts={prompts}"), format!("commitments={}", file.display()));
        let mut command =
            self.round.cacheon(&["run", "--round", "r", "--seed", "1", "-i", &prompts, "-i", &commitments]);
        command.arg("--runners").arg(self.round.dir.path().join("runners")).arg(self.pipeline(edits));
        command
    }

    /// The hotkey of one that was committed.
    pub(crate) fn hotkey_of(&self, name: &str) -> String {
        Self::hotkey(self.committed.iter().position(|(found, ..)| *found == name).expect("committed"))
    }

    /// What became of each, in the order of commitment.
    pub(crate) fn verdicts(&self) -> Vec<(&'static str, Verdict)> {
        let rows = self.round.rows("SELECT hotkey, standing, reason, detail, share FROM leaderboard");
        let text = |row: &Value, column: &str| row[column].as_str().unwrap_or_default().to_owned();
        let of = |place: usize| {
            let hotkey = Self::hotkey(place);
            let row = rows.iter().find(|row| row["hotkey"] == hotkey.as_str()).expect("everybody has a row");
            Verdict {
                standing: text(row, "standing"),
                reason: text(row, "reason"),
                detail: text(row, "detail"),
                share: row["share"].as_f64().expect("a share"),
            }
        };
        self.committed.iter().enumerate().map(|(place, (name, ..))| (*name, of(place))).collect()
    }

    pub(crate) fn verdict(&self, name: &str) -> Verdict {
        let found = self.verdicts().into_iter().find(|(found, _)| *found == name);
        found.expect("committed").1
    }

    /// Asserts what became of one, by standing and reason.
    #[track_caller]
    pub(crate) fn check(&self, name: &str, standing: &str, reason: &str) {
        let found = self.verdict(name);
        assert_eq!((found.standing.as_str(), found.reason.as_str()), (standing, reason), "{name}: {found:?}");
    }

    /// Asserts that a correct server was judged by its speed, and by nothing else.
    #[track_caller]
    pub(crate) fn is_judged_by_speed(&self, name: &str) {
        let found = self.verdict(name);
        let is_held = found.standing == "held" && found.reason == "no-decision";
        assert!(is_held || ["scored", "not-faster"].contains(&found.standing.as_str()), "{name}: {found:?}");
    }

    /// Asserts that one gained nothing, however it is called.
    #[track_caller]
    pub(crate) fn gains_nothing(&self, name: &str) {
        let found = self.verdict(name);
        assert!(found.share == 0.0 && found.standing != "scored", "{name}: {found:?}");
    }
}
