//! What is on disk is whole, inside, and one process's at a time.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::artifact::{JobStep, JournalEvent, RoundStart, StepKind, Tail};
use crate::model::{Conclusion, LeaderboardRow};
use crate::pipeline::stage::StageName;
use crate::report::RoundPhase;
use crate::report::text::error_chain;

const AT: &str = "2026-11-21T21:27:00Z";

fn id(text: &str) -> RoundId {
    text.parse().expect("an id")
}

fn data() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn round(data: &tempfile::TempDir) -> RoundDirectory {
    RoundDirectory::create(data.path(), &id("demo-1")).expect("a new round")
}

fn files(round: &RoundDirectory) -> Vec<String> {
    let seal = seal::digests(round.path()).expect("readable").to_string();
    seal.lines().skip(1).filter_map(|line| line.rsplit("  ").next()).map(str::to_owned).collect()
}

fn leader(score: f64) -> LeaderboardRow {
    LeaderboardRow {
        round_id: "demo-1".to_owned(),
        rank: 1,
        hotkey: "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY".to_owned(),
        image: Some("embedded/turbo".to_owned()),
        score,
        ..LeaderboardRow::default()
    }
}

fn time(text: &str) -> jiff::Timestamp {
    text.parse().expect("a time")
}

fn start() -> JournalEvent {
    JournalEvent::RoundStarted(RoundStart {
        schema: journal_format::SCHEMA,
        round_id: id("demo-1"),
        pipeline: "demo".to_owned(),
        run_name: None,
        pipeline_digest: digest::sha256(b""),
        runners: vec!["embedded".to_owned(), "box".to_owned()],
        seed_commitment: digest::sha256(b""),
    })
}

/// A journal of these two lines.
fn write_two_lines(writer: &mut JournalWriter) {
    let events = [start(), JournalEvent::JobStarted { job: "b".to_owned() }];
    writer.append(events.map(|event| (time(AT), event)).to_vec()).expect("appends");
}

fn round_file(started_at: &str) -> RoundFile {
    RoundFile {
        schema: RoundFile::SCHEMA,
        round_id: id("demo-1"),
        pipeline_path: "pipelines/demo.yml".to_owned(),
        pipeline_text: String::new(),
        pipeline_digest: digest::sha256(b""),
        runners: Vec::new(),
        inputs: BTreeMap::new(),
        seed_hex: "00".repeat(32),
        tool_version: "0.1.0".to_owned(),
        tool_digest: None,
        started_at: started_at.to_owned(),
        tick: None,
        parent: None,
    }
}

#[test]
fn a_round_is_made_once() {
    let data = data();
    let made = round(&data);
    assert!(made.path().ends_with("rounds/round=demo-1"));
    let again = || RoundDirectory::create(data.path(), &id("demo-1"));
    drop(made.lock().expect("free"));
    fs::write(made.path().join(".part-x"), "").expect("writes");
    assert!(again().is_ok(), "nothing has begun yet");
    made.write_round_file(&round_file(AT)).expect("writes");
    let error = again().expect_err("exists");
    assert!(matches!(error, StoreError::RoundExists { .. }), "{error}");
    let _lock = made.lock().expect("free");
    let error = again().expect_err("runs").to_string();
    assert!(error.contains(&format!("held by process {}", std::process::id())), "{error}");
    assert!(RoundDirectory::open(data.path(), &id("demo-1")).is_ok());
    assert!(matches!(RoundDirectory::open(data.path(), &id("demo-2")), Err(StoreError::RoundMissing { .. })));
}

#[test]
fn a_data_directory_that_is_a_file_is_an_error() {
    let data = data();
    let path = data.path().join("file");
    fs::write(&path, "").expect("writes");
    let error = RoundDirectory::create(&path, &id("demo-1")).expect_err("not a directory");
    assert!(error_chain(&error).contains("file/rounds"), "{error}");
}

#[test]
fn one_process_holds_it() {
    let data = data();
    let round = round(&data);
    assert_eq!(round.holder(), None);
    let lock = round.lock().expect("free");
    let error = round.lock().expect_err("held").to_string();
    assert!(error.contains(&format!("held by process {}", std::process::id())), "{error}");
    assert_eq!(round.holder(), Some(std::process::id()));
    drop(lock);
    assert_eq!(round.holder(), None);
    drop(round.lock().expect("free again"));
}

#[test]
fn a_dead_holder_holds_nothing() {
    let data = data();
    let round = round(&data);
    fs::write(round.path().join(layout::LOCK_FILE), "4194305\n").expect("writes");
    assert_eq!(round.holder(), None);
    assert!(round.lock().is_ok());
}

#[test]
fn files_are_replaced_whole() {
    let data = data();
    let round = round(&data);
    round.write_whole("jobs/a/log.txt", b"one").expect("writes");
    let path = round.write_whole("jobs/a/log.txt", b"two").expect("replaces");
    assert_eq!(fs::read(&path).expect("reads"), b"two");
    assert!(matches!(round.write_once("jobs/a/log.txt", b"three"), Err(StoreError::Exists { .. })));
    assert_eq!(round.read("jobs/a/log.txt", 3).expect("reads"), b"two");
    assert!(matches!(round.read("jobs/a/log.txt", 2), Err(StoreError::TooLarge { .. })));
    assert_eq!(files(&round), ["jobs/a/log.txt"], "no temporary file is left");
}

#[test]
fn half_written_files_are_swept() {
    let data = data();
    let round = round(&data);
    round.write_whole("results/x", b"whole").expect("writes");
    fs::write(round.path().join("results/.part-dead"), "half").expect("writes");
    drop(round.lock().expect("free"));
    assert_eq!(files(&round), ["results/x"]);
}

#[test]
fn nothing_leaves_the_directory() {
    let data = data();
    let round = round(&data);
    let outside = data.path().join("outside");
    fs::create_dir(&outside).expect("makes");
    fs::write(outside.join("secret"), "secret").expect("writes");
    symlink(&outside, round.path().join("link")).expect("links");
    symlink(outside.join("secret"), round.path().join("file")).expect("links");
    for path in ["", ".", "..", "../x", "a/../../x", "/etc/x", "link/x", "link/y/x", "file", "a\0b"] {
        let result = round.write_whole(path, b"x");
        assert!(matches!(result, Err(StoreError::Escapes { .. })), "{path}: {result:?}");
    }
    for path in ["link/secret", "file", "../outside/secret", "jobs"] {
        assert!(round.read(path, 100).is_err(), "{path}");
    }
    assert_eq!(fs::read_dir(&outside).expect("lists").count(), 1);
    assert_eq!(fs::read_to_string(outside.join("secret")).expect("reads"), "secret");
}

#[test]
fn attempts_have_harmless_names() {
    let data = data();
    let round = round(&data);
    let path = round.new_attempt_dir("measure", "../../x", 2).expect("makes");
    assert!(path.is_dir() && path.ends_with("jobs/measure/%2E.%2F..%2Fx/attempt-2"), "{path:?}");
    let again = round.new_attempt_dir("measure", "../../x", 2);
    assert!(matches!(again, Err(StoreError::Exists { path: found }) if found == path));
    assert!(round.new_attempt_dir("rank", "", 1).expect("makes").ends_with("jobs/rank/_/attempt-1"));
}

#[test]
fn the_journal_goes_on_after_a_torn_line() {
    let data = data();
    let round = round(&data);
    assert!(round.read_journal().expect("none yet").lines.is_empty());
    let (mut writer, _) = round.open_journal().expect("opens");
    write_two_lines(&mut writer);
    drop(writer);
    let path = round.path().join(layout::JOURNAL_FILE);
    let mut bytes = fs::read(&path).expect("reads");
    bytes.truncate(bytes.len() - 5);
    fs::write(&path, &bytes).expect("writes");
    assert!(matches!(round.read_journal().expect("torn").tail, Tail::Torn { .. }));

    let (mut writer, replay) = round.open_journal().expect("opens");
    assert_eq!(replay.lines.len(), 1);
    let event = JournalEvent::JobStarted { job: "c".to_owned() };
    let lines = writer.append(vec![(time(AT), event)]).expect("appends");
    assert_eq!(lines[0].seq, 1);
    let replay = round.read_journal().expect("reads");
    assert_eq!((replay.lines.len(), replay.tail), (2, Tail::Clean));
}

#[test]
fn lines_that_were_written_twice_are_cut_off() {
    let data = data();
    let round = round(&data);
    let (mut writer, _) = round.open_journal().expect("opens");
    write_two_lines(&mut writer);
    drop(writer);
    let path = round.path().join(layout::JOURNAL_FILE);
    let bytes = fs::read(&path).expect("reads");
    let second = bytes.iter().position(|byte| *byte == b'\n').expect("two lines") + 1;
    fs::write(&path, [&bytes[..], &bytes[second..]].concat()).expect("writes");
    assert!(matches!(round.read_journal().expect("doubled").tail, Tail::Doubled { .. }));

    let (mut writer, replay) = round.open_journal().expect("opens");
    assert_eq!(replay.lines.len(), 2);
    assert_eq!(fs::read(&path).expect("reads"), bytes);
    let event = JournalEvent::JobStarted { job: "c".to_owned() };
    assert_eq!(writer.append(vec![(time(AT), event)]).expect("appends")[0].seq, 2);
    let replay = round.read_journal().expect("reads");
    assert_eq!((replay.lines.len(), replay.tail), (3, Tail::Clean));
}

#[test]
fn a_damaged_journal_is_not_written_on() {
    let data = data();
    let round = round(&data);
    let (mut writer, _) = round.open_journal().expect("opens");
    write_two_lines(&mut writer);
    let path = round.path().join(layout::JOURNAL_FILE);
    let mut bytes = fs::read(&path).expect("reads");
    bytes[10] ^= 1;
    fs::write(&path, &bytes).expect("writes");
    let error = round.open_journal().expect_err("damaged");
    assert!(error_chain(&error).contains("line 1 of the journal is damaged"), "{}", error_chain(&error));
    assert_eq!(fs::read(&path).expect("reads"), bytes);
}

#[test]
fn a_sealed_round_is_what_it_was() {
    let data = data();
    let round = round(&data);
    round.write_whole("a", b"1").expect("writes");
    symlink("/etc/passwd", round.path().join("link")).expect("links");
    let _lock = round.lock().expect("free");
    assert!(round.check_seal().is_err(), "no seal yet");
    assert_eq!(round.seal().expect("seals").len(), 2);
    assert_eq!(round.check_seal().expect("verifies"), None);
    assert!(matches!(round.seal(), Err(StoreError::Exists { .. })));
    assert!(matches!(round.write_whole("a", b"2"), Err(StoreError::Sealed { .. })));
    assert!(matches!(round.open_journal(), Err(StoreError::Sealed { .. })));
    let difference = || round.check_seal().expect("verifies").map(|difference| difference.to_string());
    fs::write(round.path().join("b"), "").expect("writes");
    assert!(difference().is_some_and(|text| text.contains("`b` was not there")));
    fs::write(round.path().join("a"), "2").expect("writes");
    assert!(difference().is_some_and(|text| text.contains("`a` was sealed as")));
    fs::remove_file(round.path().join("a")).expect("removes");
    assert_eq!(difference().as_deref(), Some("`a` was sealed and is gone"));
}

#[test]
fn tables_and_round_file_are_read_back() {
    let data = data();
    let round = round(&data);
    let published = round.write_table(&[leader(0.5)]).expect("writes");
    assert_eq!((published.path.as_str(), published.rows), ("results/leaderboard.parquet", 1));
    assert_eq!(round.read_table::<LeaderboardRow>().expect("reads"), [leader(0.5)]);
    round.write_round_file(&round_file(AT)).expect("writes");
    assert_eq!(round.read_round_file().expect("reads"), round_file(AT));
    assert!(matches!(round.write_round_file(&round_file(AT)), Err(StoreError::Exists { .. })));
}

#[test]
fn rounds_are_listed_among_junk() {
    let data = data();
    assert_eq!(list_rounds(data.path()).expect("nothing yet"), []);
    let done = round(&data);
    done.write_round_file(&round_file(AT)).expect("writes");
    done.write_table(&[leader(0.5)]).expect("writes");
    let (mut writer, _) = done.open_journal().expect("opens");
    let end = JournalEvent::RoundEnded { conclusion: Conclusion::Success, exit_code: 0 };
    writer.append(vec![(time(AT), start()), (time("2026-11-21T21:30:00Z"), end)]).expect("appends");
    let newer = RoundDirectory::create(data.path(), &id("demo-0")).expect("a new round");
    newer.write_round_file(&round_file("2026-11-22T00:00:00Z")).expect("writes");
    let empty = RoundDirectory::create(data.path(), &id("empty")).expect("a new round");
    let rounds = data.path().join(layout::ROUNDS_DIR);
    fs::create_dir(rounds.join("round=NOT VALID")).expect("makes");
    fs::create_dir(rounds.join("other")).expect("makes");
    fs::write(rounds.join("round=file"), "").expect("writes");
    fs::write(empty.path().join(layout::JOURNAL_FILE), [0xff; 100]).expect("writes");
    let results = empty.path().join("results");
    fs::create_dir(&results).expect("makes");
    fs::write(results.join("leaderboard.parquet"), "junk").expect("writes");

    let listed = list_rounds(data.path()).expect("lists");
    let ids: Vec<&str> = listed.iter().map(|round| round.round_id.as_str()).collect();
    assert_eq!(ids, ["demo-0", "demo-1", "empty"]);
    assert_eq!(listed[0].state, RoundPhase::Interrupted);
    assert_eq!(listed[1].state, RoundPhase::Ended(Conclusion::Success));
    assert_eq!(listed[1].winner.as_ref().map(|winner| winner.score), Some(0.5));
    assert_eq!(listed[1].ended_at.as_deref(), Some("2026-11-21T21:30:00Z"));
    assert_eq!(listed[1].problem, None);
    assert_eq!(round_detail(&done).runner.as_deref(), Some("embedded,box"));
    assert!(listed[2].problem.is_some());
    let _lock = newer.lock().expect("free");
    assert_eq!(round_detail(&newer).summary.state, RoundPhase::Running);
}

#[test]
fn a_ranking_that_is_not_published_is_shown_as_one() {
    let data = data();
    let round = round(&data);
    let at = LegAttempt { job: "rank".to_owned(), leg: String::new(), attempt: 2 };
    let step = JobStep { index: 0, name: "rank".to_owned(), kind: StepKind::Stage(StageName::Rank) };
    let (mut writer, _) = round.open_journal().expect("opens");
    let events = [
        start(),
        JournalEvent::JobStarted { job: "rank".to_owned() },
        JournalEvent::LegStarted { at: at.clone(), runner: String::new() },
        JournalEvent::StepStarted { at: at.clone(), step },
        JournalEvent::LegEnded {
            at: at.clone(),
            conclusion: Conclusion::Success,
            reason: None,
            outputs: serde_json::Map::new(),
        },
    ];
    writer.append(events.map(|event| (time(AT), event)).to_vec()).expect("appends");
    assert_eq!(round_detail(&round).leaderboard, []);
    let rows =
        artifact::encode(&[leader(0.5)], &TableContext { round_id: round.round_id() }).expect("encodes");
    let relative = format!("{}/leaderboard.parquet", layout::attempt_path(&at.job, &at.leg, at.attempt));
    round.write_whole(&relative, &rows).expect("writes");
    let detail = round_detail(&round);
    assert_eq!((detail.leaderboard, detail.is_leaderboard_published), (vec![leader(0.5)], false));
    // Nobody has won anything yet.
    assert_eq!(detail.summary.winner, None);
}

#[test]
fn a_journal_of_the_first_format_is_shown_and_not_written_on() {
    let data = data();
    let round = round(&data);
    let bytes = include_bytes!("../../../tests/fixtures/journal/version-1.jsonl");
    round.write_whole(layout::JOURNAL_FILE, bytes).expect("writes");
    let detail = round_detail(&round);
    assert_eq!(detail.summary.state, RoundPhase::Ended(Conclusion::Success));
    assert_eq!(detail.runner.as_deref(), Some("embedded,other"));
    assert_eq!(detail.tables.len(), 1);
    let error = error_chain(&round.open_journal().expect_err("an older format"));
    assert!(
        error.contains("version 1.0") && error.contains(&format!("only with {}", artifact::journal::SCHEMA)),
        "{error}"
    );
}

#[test]
fn a_journal_of_a_newer_format_is_a_problem_by_name() {
    let data = data();
    let round = round(&data);
    let json = "{\"seq\":0,\"schema\":\"3.0\"";
    let crc = &digest::sha256(format!("{json}}}").as_bytes()).as_str()["sha256:".len()..][..16].to_owned();
    round
        .write_whole(layout::JOURNAL_FILE, format!("{json},\"crc\":\"{crc}\"}}\n").as_bytes())
        .expect("writes");
    let problem = round_detail(&round).summary.problem.expect("a problem");
    assert!(problem.contains("version 3.0"), "{problem}");
}
