use serde_json::{Value, json};

use super::*;
use crate::adapters::store::RoundDirectory;
use crate::artifact::{self, TableContext, layout};
use crate::model::{LeaderboardRow, RequestFlag, RequestRow, RoundId, StepAttemptRow, WeightRow};
use crate::report::text::error_chain;

fn id(text: &str) -> RoundId {
    text.parse().expect("an id")
}

fn weight(round: &str, hotkey: &str, share: f64) -> WeightRow {
    WeightRow {
        round_id: round.to_owned(),
        hotkey: hotkey.to_owned(),
        share,
        weight: 65535,
        is_dry_run: true,
        ..WeightRow::default()
    }
}

fn request(round: &str, prompt_index: u32) -> RequestRow {
    RequestRow {
        round_id: round.to_owned(),
        read_key: "0001".to_owned(),
        prompt_index,
        flags: [RequestFlag::TooLarge, RequestFlag::NoDone].into(),
        ttft_ns: Some(1000 * i64::from(prompt_index + 1)),
        ..RequestRow::default()
    }
}

fn step(round: &str) -> StepAttemptRow {
    StepAttemptRow {
        round_id: round.to_owned(),
        started_at_us: 1_795_300_000_250_000,
        duration_ns: 5,
        ..StepAttemptRow::default()
    }
}

/// Two rounds with weights, requests and steps.
fn data() -> tempfile::TempDir {
    let data = tempfile::tempdir().expect("a temporary directory");
    for (round, share) in [("demo-1", 0.5), ("demo-2", 1.0)] {
        let directory = RoundDirectory::create(data.path(), &id(round)).expect("a new round");
        directory.write_table(&[weight(round, "alice", share), weight(round, "bob", 0.25)]).expect("writes");
        directory.write_table(&(0..4).map(|n| request(round, n)).collect::<Vec<_>>()).expect("writes");
        directory.write_table(&[step(round)]).expect("writes");
    }
    data
}

fn ask(data: &tempfile::TempDir, sql: &str) -> QueryResult {
    query(data.path(), sql, QueryLimits::default())
        .unwrap_or_else(|error| panic!("{sql}: {}", error_chain(&error)))
}

fn refusal(sql: &str) -> String {
    error_chain(&query(data().path(), sql, QueryLimits::default()).expect_err(sql))
}

#[test]
fn answers() {
    let data = data();
    let check = |sql: &str, expected: Value| {
        let result = ask(&data, sql);
        assert_eq!(result.warnings, Vec::<String>::new(), "{sql}");
        assert_eq!(json!(result.rows), expected, "{sql}");
    };
    check(
        "SELECT round_id, hotkey, share, weight, uid, is_dry_run FROM weights WHERE share >= 0.5 ORDER BY share DESC",
        json!([["demo-2", "alice", 1.0, 65535, null, true], ["demo-1", "alice", 0.5, 65535, null, true]]),
    );
    check(
        "SELECT r.round_id, COUNT(*) AS n, AVG(r.ttft_ns) AS mean FROM requests r \
         JOIN weights w ON w.round_id = r.round_id WHERE w.hotkey = 'alice' GROUP BY r.round_id ORDER BY r.round_id",
        json!([["demo-1", 4, 2500.0], ["demo-2", 4, 2500.0]]),
    );
    check("SELECT flags FROM requests LIMIT 1", json!([[["no_done", "too_large"]]]));
    check(
        "SELECT started_at_us, duration_ns FROM step_attempts LIMIT 1",
        json!([["2026-11-21T22:26:40.25Z", 5]]),
    );
    check("SELECT COUNT(*) AS n FROM leaderboard", json!([[0]]));
    check(
        "WITH best AS (SELECT hotkey, MAX(share) AS s FROM weights GROUP BY hotkey) SELECT hotkey FROM best ORDER BY s",
        json!([["bob"], ["alice"]]),
    );
    check("-- why\n/* not */ SELECT 1 AS one", json!([[1]]));
    check("SELECT QUANTILE_CONT(ttft_ns, 0.5) AS median FROM requests", json!([[2500.0]]));
    check("SELECT hotkey FROM weights WHERE hotkey LIKE 'al%' AND round_id = 'demo-1'", json!([["alice"]]));
}

#[test]
fn types_are_told() {
    let result = ask(&data(), "SELECT hotkey, weight, share FROM weights");
    assert_eq!(result.types, ["str", "u16", "f64"]);
    assert_eq!(ask(&data(), "SHOW TABLES").rows.len(), table_names().len());
}

#[test]
fn what_is_refused() {
    let check = |sql: &str, expected: &str| {
        let error = refusal(sql);
        assert!(error.contains(expected), "{sql}: {error}");
    };
    check("SELECT * FROM nothing", "there is no table `nothing`; the tables are commitments, submissions");
    check("SELECT * FROM read_parquet('/etc/passwd')", "`read_parquet` is not allowed");
    check("SELECT * FROM READ_CSV('/etc/passwd')", "`READ_CSV` is not allowed");
    check("SELECT * FROM \"read_parquet\"('/etc/passwd')", "is not allowed");
    check("SELECT * FROM read_parquet.x('/etc/passwd')", "is not allowed");
    check("SELECT * FROM weights JOIN (SELECT * FROM scan_parquet('/x')) t ON true", "is not allowed");
    check("WITH t AS (SELECT * FROM read_json('/x')) SELECT * FROM t", "is not allowed");
    check("EXPLAIN SELECT * FROM read_parquet('/x')", "is not allowed");
    for sql in [
        "DROP TABLE weights",
        "CREATE TABLE x AS SELECT * FROM weights",
        "DELETE FROM weights",
        "INSERT INTO weights VALUES (1)",
        "UPDATE weights SET share = 1",
        "TRUNCATE TABLE weights",
        "COPY weights TO '/tmp/x'",
        "/* SELECT */ -- SELECT\n drop table weights",
        "EXPLAIN DELETE FROM weights",
    ] {
        check(sql, "only reading is allowed");
    }
    check("SELECT 1; DROP TABLE weights", "one (and only one) statement");
    check("SELECT nothing FROM weights", "the query cannot be answered: ");
    check("SELECT (FROM weights", "the query cannot be answered: ");
    check("", "one (and only one) statement");
}

#[test]
fn bad_files_are_left_out() {
    let data = data();
    let mut directories = Vec::new();
    for round in ["bad-1", "bad-2", "bad-3", "bad-4", "bad-5"] {
        directories.push(RoundDirectory::create(data.path(), &id(round)).expect("a new round"));
    }
    let path = layout::table_path("weights");
    let context =
        |round| artifact::encode(&[weight("demo-1", "eve", 9.0)], &TableContext { round_id: round });
    let foreign = context(&id("bad-2")).expect("encodes");
    directories[0].write_whole(&path, b"junk").expect("writes");
    directories[1].write_whole(&path, &foreign).expect("writes");
    let other = artifact::encode::<LeaderboardRow>(&[], &TableContext { round_id: &id("bad-3") });
    directories[2].write_whole(&path, &other.expect("encodes")).expect("writes");
    directories[3].write_whole(&path, &foreign[..foreign.len() / 2]).expect("writes");
    std::fs::create_dir_all(directories[4].path().join(&path)).expect("makes");

    let result = ask(&data, "SELECT * FROM weights");
    assert_eq!(result.rows.len(), 4);
    assert_eq!(result.warnings.len(), 5, "{:?}", result.warnings);
    assert!(result.warnings[0].starts_with("table `weights` of round bad-1 is left out: "));
    assert!(result.warnings[1].ends_with("it holds rows of another round"));
    assert!(result.warnings[2].ends_with("want table `weights`, the file holds `leaderboard`"));
    assert_eq!(ask(&data, "SELECT * FROM requests").warnings.len(), 0);
}

#[test]
fn limits() {
    let data = data();
    let ask = |limits| query(data.path(), "SELECT * FROM weights", limits).expect("answers");
    let result = ask(QueryLimits { rows: 3, ..QueryLimits::default() });
    assert_eq!((result.rows.len(), result.warnings.len()), (3, 1));
    let result = ask(QueryLimits { unsealed_bytes: 10, ..QueryLimits::default() });
    assert_eq!((result.rows.len(), result.warnings.len()), (0, 2));
    assert!(
        result.warnings[0].contains("the round is not sealed, and its file of "),
        "{:?}",
        result.warnings
    );
    seal_all(&data);
    assert_eq!(ask(QueryLimits { unsealed_bytes: 10, ..QueryLimits::default() }).rows.len(), 4);
}

fn seal_all(data: &tempfile::TempDir) {
    for round in store::directories(data.path()).expect("lists") {
        if !round.is_sealed() {
            round.seal().expect("seals");
        }
    }
}

/// The same questions have the same answers, whether rounds are scanned, read whole, or both.
#[test]
fn sealed_rounds_answer_as_unsealed_ones() {
    let data = data();
    let questions = [
        "SELECT * FROM weights ORDER BY round_id, hotkey",
        "SELECT * FROM requests ORDER BY round_id, prompt_index",
        "SELECT * FROM step_attempts ORDER BY round_id",
        "SELECT COUNT(*) AS n FROM requests",
        "SELECT COUNT(*) AS n FROM (SELECT hotkey FROM weights UNION ALL SELECT read_key FROM requests) t",
        "SELECT hotkey FROM weights WHERE round_id = 'demo-2' AND share > 0.5",
        "SELECT r.round_id, COUNT(*) AS n FROM requests r JOIN weights w ON w.round_id = r.round_id \
         WHERE w.hotkey = 'alice' GROUP BY r.round_id ORDER BY r.round_id",
    ];
    let before = questions.map(|sql| ask(&data, sql));
    RoundDirectory::open(data.path(), &id("demo-2")).expect("is there").seal().expect("seals");
    assert_eq!(questions.map(|sql| ask(&data, sql)), before, "one of two");
    seal_all(&data);
    assert_eq!(questions.map(|sql| ask(&data, sql)), before, "both");
    assert_eq!(questions.map(|sql| ask(&data, sql)), before, "with the digests remembered");
    assert!(data.path().join(layout::QUERY_CACHE_FILE).is_file());
    std::fs::write(data.path().join(layout::QUERY_CACHE_FILE), b"{").expect("writes");
    assert_eq!(questions.map(|sql| ask(&data, sql)), before, "with a damaged cache");
}

#[test]
fn what_is_not_as_it_was_sealed_is_left_out_by_name() {
    let data = data();
    seal_all(&data);
    let path = data.path().join("rounds/round=demo-1").join(layout::table_path("weights"));
    let check = |rows: usize, expected: &str| {
        let result = ask(&data, "SELECT * FROM weights");
        assert_eq!(result.rows.len(), rows, "{expected}");
        let start = "table `weights` of round demo-1 is left out: ";
        let why: Vec<_> = result.warnings.iter().filter_map(|warning| warning.strip_prefix(start)).collect();
        assert_eq!(why.len(), usize::from(!expected.is_empty()), "{:?}", result.warnings);
        assert!(why.iter().all(|why| why.contains(expected)), "{expected}: {why:?}");
    };
    check(4, "");
    let good = std::fs::read(&path).expect("reads");
    let mut changed = good.clone();
    changed[good.len() / 2] ^= 1;
    std::fs::write(&path, &changed).expect("writes");
    check(2, "`results/weights.parquet` was sealed as sha256:");
    std::fs::write(&path, &good[1..]).expect("writes");
    check(2, "bytes and has ");
    std::fs::remove_file(&path).expect("removes");
    check(2, "`results/weights.parquet` was sealed and is gone");
    std::os::unix::fs::symlink("/etc/passwd", &path).expect("links");
    check(2, "is not a path inside the round's directory");
    std::fs::remove_file(&path).expect("removes");
    std::fs::write(&path, &good).expect("writes");
    check(4, "");
    std::fs::write(data.path().join("rounds/round=demo-1/SEAL"), b"junk\n").expect("writes");
    check(2, "the round has no usable seal: ");
}

/// A round that was sealed with such a file in it: the seal is right, and the file still wrong.
#[test]
fn a_seal_does_not_make_a_foreign_file_a_table() {
    let data = data();
    let path = layout::table_path("weights");
    let context =
        |round| artifact::encode(&[weight("demo-1", "eve", 9.0)], &TableContext { round_id: round });
    let foreign = context(&id("demo-1")).expect("encodes");
    let other = artifact::encode::<LeaderboardRow>(&[], &TableContext { round_id: &id("bad-2") });
    let files = [b"junk".to_vec(), other.expect("encodes"), foreign[..foreign.len() / 2].to_vec(), foreign];
    for (file, number) in files.iter().zip(1..) {
        let round = RoundDirectory::create(data.path(), &id(&format!("bad-{number}"))).expect("a new round");
        round.write_whole(&path, file).expect("writes");
    }
    seal_all(&data);
    RoundDirectory::create(data.path(), &id("bad-5")).expect("a new round").seal().expect("seals");
    let late = data.path().join("rounds/round=bad-5/results");
    std::fs::create_dir(&late).expect("makes");
    std::fs::write(late.join("weights.parquet"), &files[3]).expect("writes");

    let result = ask(&data, "SELECT * FROM weights");
    assert_eq!(result.rows.len(), 4);
    let check = |number: usize, expected: &str| {
        let warning = &result.warnings[number];
        assert!(warning.ends_with(expected), "{warning}");
    };
    assert_eq!(result.warnings.len(), 5, "{:?}", result.warnings);
    assert!(result.warnings[0].contains("is not a readable Parquet file"));
    check(1, "want table `weights`, the file holds `leaderboard`");
    check(3, "is not known to hold the rows of round bad-4 and no others");
    check(4, "was not there when the round was sealed");
}

#[test]
fn tables_are_listed_with_their_rows() {
    let data = data();
    let result = list(data.path()).expect("lists");
    assert_eq!(result.columns, ["table", "version", "rounds", "rows", "meaning"]);
    assert_eq!(result.rows.len(), table_names().len());
    let of = |table: &str| result.rows.iter().find(|row| row[0] == table).expect("a table")[1..4].to_vec();
    assert_eq!(of("weights"), [json!("1.0"), json!(2), json!(4)]);
    assert_eq!(of("requests"), [json!("1.1"), json!(2), json!(8)]);
    assert_eq!(of("leaderboard"), [json!("1.0"), json!(0), json!(0)]);
}

#[test]
fn a_schema_says_type_unit_and_meaning() {
    let result = schema("requests").expect("a table");
    let of = |column: &str| result.rows.iter().find(|row| row[0] == column).expect("a column")[1..].to_vec();
    assert_eq!(
        of("ttft_ns"),
        [
            json!("i64"),
            json!(true),
            json!("ns"),
            json!("1.0"),
            json!(
                "When the first credited token had arrived, its text and its log probability: the time to first token; the \
                 body's end if the log probability never came."
            )
        ]
    );
    assert_eq!(of("flags")[..3], [json!("list[str]"), json!(false), json!(null)]);
    assert!(schema("nothing").expect_err("no table").to_string().starts_with("there is no table `nothing`"));
}

#[test]
fn no_rounds_are_no_error() {
    let data = tempfile::tempdir().expect("a temporary directory");
    assert_eq!(ask(&data, "SELECT rank FROM leaderboard").rows.len(), 0);
}

/// The engine's own reader aborts on some of these: an allocation of exabytes cannot be caught.
#[test]
fn a_crafted_file_ends_nothing() {
    let data = data();
    let path = layout::table_path("weights");
    let good = RoundDirectory::open(data.path(), &id("demo-1")).expect("is there").read(&path, 1 << 20);
    let good = good.expect("reads");
    let bad = RoundDirectory::create(data.path(), &id("bad-1")).expect("a new round");
    for offset in (good.len() * 3 / 4..good.len()).step_by(7) {
        let mut bytes = good.clone();
        bytes[offset] ^= [0x01, 0x80, 0xff][offset % 3];
        bad.write_whole(&path, &bytes).expect("writes");
        let rows = ask(&data, "SELECT * FROM weights").rows.len();
        assert!(rows == 4 || rows == 6, "{offset}: {rows}");
    }
}
