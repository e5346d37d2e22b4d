//! `cacheon schedule next`: instants, notes on clock changes, and what is said about lines that are wrong.

use std::process::Output;

use assert_cmd::Command;

fn next(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cacheon"));
    let output =
        command.env("NO_COLOR", "1").args(["schedule", "next"]).args(args).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked"), "{said}");
    output
}

/// What is printed and what is said.
fn check(args: &[&str], stdout: &str, stderr: &str) {
    let output = next(args);
    assert_eq!(String::from_utf8_lossy(&output.stdout), stdout, "{args:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), stderr, "{args:?}");
    assert_eq!(output.status.code(), Some(0), "{args:?}");
}

/// What is said by a command that ends with this code and prints nothing.
fn refused(args: &[&str], code: i32) -> String {
    let output = next(args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{args:?}: {said}");
    said
}

#[test]
fn a_line_shows_its_instants_and_what_clock_changes_do() {
    check(
        &["--cron", "17 */6 * * *", "--after", "2026-03-01T00:00Z", "-n", "2"],
        "Sun 2026-03-01 00:17 +00:00 UTC  2026-03-01T00:17:00Z\n\
         Sun 2026-03-01 06:17 +00:00 UTC  2026-03-01T06:17:00Z\n",
        "`17 */6 * * *` runs at 00:17, 06:17, 12:17, 18:17 UTC\n",
    );
    let new_york = ["--timezone", "America/New_York"];
    let moved = ["--cron", "30 2 * * 0", "--after", "2026-03-08T01:59:00-05:00", "-n", "2"];
    check(
        &[&moved[..], &new_york].concat(),
        "Sun 2026-03-08 03:00 -04:00 America/New_York  2026-03-08T07:00:00Z  moved by the clock change: 02:30 does not exist\n\
         Sun 2026-03-15 02:30 -04:00 America/New_York  2026-03-15T06:30:00Z\n",
        "`30 2 * * 0` runs at 02:30 America/New_York on the days of `* * 0`\n",
    );
    let repeated = ["--cron", "30 * * * *", "--after", "2026-11-01T05:00Z", "-n", "2"];
    check(
        &[&repeated[..], &new_york].concat(),
        "Sun 2026-11-01 01:30 -04:00 America/New_York  2026-11-01T05:30:00Z  first of two\n\
         Sun 2026-11-01 01:30 -05:00 America/New_York  2026-11-01T06:30:00Z  second of two\n",
        "`30 * * * *` runs every hour from 00:30 America/New_York\n",
    );
    check(&["--cron", "0 0 31 2 *"], "", "`0 0 31 2 *` never fires\n");
    assert_eq!(String::from_utf8_lossy(&next(&["--cron", "0 0 * * *"]).stdout).lines().count(), 10);
}

#[test]
fn json_is_an_array_of_instants() {
    let zone = ["--timezone", "Pacific/Apia", "--json"];
    let output =
        next(&[&["--cron", "0 0 * * *", "--after", "2011-12-29T10:00Z", "-n", "1"][..], &zone].concat());
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let expected = serde_json::json!([{
        "cron": "0 0 * * *",
        "timezone": "Pacific/Apia",
        "at": "2011-12-30T10:00:00Z",
        "local": "2011-12-31T00:00:00+14:00",
        "note": "moved by the clock change: 2011-12-30 00:00 does not exist",
    }]);
    assert_eq!(found, expected);
    check(&["--cron", "0 0 31 2 *", "--json"], "[]\n", "`0 0 31 2 *` never fires\n");
}

#[test]
fn the_schedules_of_a_pipeline_are_merged() {
    let folder = tempfile::tempdir().expect("temp dir");
    let path = folder.path().join("p.yml");
    let write = |schedules: &str| {
        let job = "jobs: { a: { runs-on: controller, steps: [{ run: 'true' }] } }";
        std::fs::write(&path, format!("on:\n  dispatch:\n{schedules}{job}\n")).expect("write");
    };
    let path = path.to_str().expect("UTF-8");
    write("  schedule:\n    - cron: 0 12 * * *\n    - { cron: '0 9,13 * * *', timezone: Europe/Berlin }\n");
    check(
        &[path, "--after", "2026-01-01T00:00Z", "-n", "3"],
        "Thu 2026-01-01 09:00 +01:00 Europe/Berlin  2026-01-01T08:00:00Z  0 9,13 * * *\n\
         Thu 2026-01-01 12:00 +00:00 UTC            2026-01-01T12:00:00Z  0 12 * * *\n\
         Thu 2026-01-01 13:00 +01:00 Europe/Berlin  2026-01-01T12:00:00Z  0 9,13 * * *\n",
        "`0 12 * * *` runs at 12:00 UTC\n`0 9,13 * * *` runs at 09:00, 13:00 Europe/Berlin\n",
    );
    write("  schedule: [{ cron: '0 24 * * *' }]\n");
    let said = refused(&[path], 3);
    assert!(said.contains("hour field: 24 is out of range 0-23") && said.contains("p.yml:3:25"), "{said}");
    assert!(!said.contains("L060"), "{said}");
    write("");
    assert!(refused(&[path], 2).contains("has no `on.schedule`"));
    assert!(refused(&["nowhere.yml"], 3).contains("nowhere.yml"));
}

#[test]
fn what_is_wrong_is_underlined() {
    insta::assert_snapshot!(refused(&["--cron", "0 5-3 * * *"], 3), @r"
    error[L045]: hour field: range 5-3 runs backwards; write `5-23,0-3`
     --> --cron:1:3
      |
    1 | 0 5-3 * * *
      |   ^^^
    ");
    insta::assert_snapshot!(refused(&["--cron", "-5 * * * *"], 3), @r"
    error[L045]: minute field: '-5' is not a range; write two values with one `-` between them
     --> --cron:1:1
      |
    1 | -5 * * * *
      | ^^
    ");
    insta::assert_snapshot!(refused(&["--cron", "0 5 * * *", "--timezone", "Europe/Berln"], 3), @r"
    error[L046]: unknown time zone `Europe/Berln`
     --> --timezone:1:1
      |
    1 | Europe/Berln
      | ^^^^^^^^^^^^
      |
      = help: did you mean `Europe/Berlin`?
    ");
    refused(&["--cron", ""], 3);
    refused(&[], 2);
    refused(&["p.yml", "--cron", "0 5 * * *"], 2);
    refused(&["p.yml", "--timezone", "UTC"], 2);
    refused(&["--cron", "0 5 * * *", "-n", "0"], 2);
    refused(&["--cron", "0 5 * * *", "-n", "1001"], 2);
    refused(&["--cron", "0 5 * * *", "--after", "tomorrow"], 2);
}
