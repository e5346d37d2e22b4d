//! Lines that fire, lines that are refused, and a slow reading of the same rules to hold the fast one against.

use std::collections::HashSet;
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::{SignedDuration, Timestamp, ToSpan as _, Zoned};
use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;

const VECTORS: &str = include_str!("../../../tests/fixtures/vectors/cron.json");

fn cron(line: &str) -> Cron {
    Cron::parse(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn instant(text: &str, zone: &str) -> Zoned {
    text.parse::<Timestamp>().unwrap().to_zoned(time_zone(zone).unwrap())
}

/// The first instants of a line in UTC, as many as are expected; `never` is the end.
fn check(line: &str, (zone, after): (&str, &str), expected: &[&str]) {
    let cron = cron(line);
    let fires = cron.after(&instant(after, zone)).map(|at| at.timestamp().to_string());
    let found: Vec<String> = fires.chain(["never".to_owned()]).take(expected.len()).collect();
    let expected: Vec<String> = expected
        .iter()
        .map(|at| at.parse::<Timestamp>().map_or((*at).to_owned(), |at| at.to_string()))
        .collect();
    assert_eq!(found, expected, "{line} in {zone} after {after}");
}

#[test]
fn cron_vectors_all_pass() {
    let rows: Vec<Json> = serde_json::from_str(VECTORS).unwrap();
    for row in rows {
        let text = |key: &str| row[key].as_str().unwrap();
        if let Some(expected) = row.get("error").and_then(Json::as_str) {
            let found = Cron::parse(text("cron")).map(|_| ()).map_err(|error| error.to_string());
            assert!(found.as_ref().is_err_and(|found| found.starts_with(expected)), "{row} gave {found:?}");
        } else {
            let next: Vec<&str> = row["next"].as_array().unwrap().iter().filter_map(Json::as_str).collect();
            check(text("cron"), (text("timezone"), text("after")), &next);
        }
    }
}

/// A line that is refused: what is said, and the part of the line that is underlined.
fn refused(line: &str, part: &str, said: &str) {
    let error = Cron::parse(line).expect_err(line);
    assert_eq!((error.to_string().as_str(), &line[error.span.range()]), (said, part), "{line}");
}

#[test]
fn a_broken_line_says_which_field_is_wrong_and_what_to_write() {
    let count = |found| {
        format!("expected 5 fields, found {found}; write minute, hour, day of month, month, day of week")
    };
    refused("", "", &count(0));
    refused(" \t ", " \t ", &count(0));
    refused("0 * * * * *", "0 * * * * *", &count(6));
    refused("0\u{a0}* * * *", "0\u{a0}* * * *", &count(4));
    refused("@daily", "@daily", "nicknames like '@daily' are not supported; write `0 0 * * *`");
    refused(" @Hourly ", " @Hourly ", "nicknames like '@Hourly' are not supported; write `0 * * * *`");
    refused("@reboot", "@reboot", "nicknames like '@reboot' are not supported");
    refused("60 * * * *", "60", "minute field: 60 is out of range 0-59");
    refused("0 1,24 * * *", "24", "hour field: 24 is out of range 0-23");
    refused("0 0 30-32 * *", "32", "day of month field: 32 is out of range 1-31");
    refused("0 0 * 0/2 *", "0", "month field: 0 is out of range 1-12");
    refused("0 0 * * 8", "8", "day of week field: 8 is out of range 0-7");
    refused(
        "99999999999999999999 * * * *",
        "99999999999999999999",
        "minute field: 99999999999999999999 is out of range 0-59",
    );
    refused("5-1 * * * *", "5-1", "minute field: range 5-1 runs backwards; write `5-59,0-1`");
    refused("0 22-2/2 * * *", "22-2", "hour field: range 22-2 runs backwards; write `22-23,0-2`");
    refused("0 0 * * FRI-sun", "FRI-sun", "day of week field: range FRI-sun runs backwards; write `5-7`");
    refused("0 0 * * sat-tue", "sat-tue", "day of week field: range sat-tue runs backwards; write `6-7,1-2`");
    for (line, part, step) in [
        ("*/0 * * * *", "/0", "0"),
        ("*/000 * * * *", "/000", "000"),
        ("1/ * * * *", "/", ""),
        ("*/+5 * * * *", "/+5", "+5"),
        ("1/2/3 * * * *", "/2/3", "2/3"),
        ("1-9/x * * * *", "/x", "x"),
    ] {
        refused(line, part, &format!("minute field: step must be a positive integer, not '{step}'"));
    }
    refused("0 /5 * * *", "/5", "hour field: the step '/5' has no range before it; write `*/5`");
    for (line, part) in [("1,,2 * * * *", ","), (", * * * *", ","), ("1, * * * *", ","), (",1 * * * *", ",")]
    {
        refused(line, part, "minute field: empty list item");
    }
    for part in ["*-5", "5-*", "1-", "-5", "-", "--", "1-2-3", "*-*"] {
        let said =
            format!("minute field: '{part}' is not a range; write two values with one `-` between them");
        refused(&format!("7,{part}/2 * * * *"), part, &said);
    }
    for part in ["x", "+5", "٣", "５", "**", "0x5", "1.5", "jan"] {
        refused(&format!("{part} * * * *"), part, &format!("minute field: '{part}' is not a number"));
    }
    let words = "is not a number or a three-letter name";
    refused("0 0 * january *", "january", &format!("month field: 'january' {words}"));
    refused("0 0 * mon *", "mon", &format!("month field: 'mon' {words}"));
    refused("0 0 * * mon-frx", "frx", &format!("day of week field: 'frx' {words}"));
    refused("0 0 * * 5#2", "5#2", &format!("day of week field: '5#2' {words}; `#` is not supported"));
    refused("0 0 * * 5L", "5L", &format!("day of week field: '5L' {words}; `L` and `W` are not supported"));
    refused("0 0 L * *", "L", "day of month field: 'L' is not a number; `L` and `W` are not supported");
    refused("0 0 15W * *", "15W", "day of month field: '15W' is not a number; `L` and `W` are not supported");
    refused("0 0 ? * *", "?", "day of month field: '?' is not a number; write `*`");
}

#[test]
fn a_field_means_a_set() {
    let same = |line: &str, other: &str| {
        let fires = |line| {
            let start = instant("2026-01-01T00:00Z", "UTC");
            cron(line).after(&start).take(50).collect::<Vec<Zoned>>()
        };
        assert_eq!(fires(line), fires(other), "{line} and {other}");
    };
    same("\t0  0\t* * MON-FRI ", "0 0 * * 1-5");
    same("0 0 * jan,MAR,5 *", "0 0 * 1,3,5 *");
    same("0 0 * jAn-Mar/2 *", "0 0 * 1,3 *");
    same("0 0 * * 5-7", "0 0 * * fri,sat,sun");
    same("0 0 * * 0-7", "0 0 * * *");
    same("0 0 * * 7", "0 0 * * Sun");
    same("0 0 * * 1/2", "0 0 * * 1,3,5,7");
    same("00 012 * * *", "0 12 * * *");
    same("20/15 3 * * *", "20,35,50 3 * * *");
    same("*/61 3 * * *", "0 3 * * *");
    same("7/99999999999999999999 3 * * *", "7 3 * * *");
    same("1-5,3-8/2,* 3 * * *", "* 3 * * *");
    assert_eq!(cron(" 0\t0 * * *\n").as_str(), "0\t0 * * *");
}

#[test]
fn two_day_fields_are_joined_as_vixie_does() {
    let start = ("UTC", "2026-03-01T00:00Z");
    check("0 0 13 * 5", start, &["2026-03-06T00:00Z", "2026-03-13T00:00Z", "2026-03-20T00:00Z"]);
    check("0 0 1,13 * MON", start, &["2026-03-02T00:00Z", "2026-03-09T00:00Z", "2026-03-13T00:00Z"]);
    check("0 0 */10 * 5", start, &["2026-05-01T00:00Z"]);
    check("0 0 13 * */5", start, &["2026-03-13T00:00Z", "2026-09-13T00:00Z", "2026-11-13T00:00Z"]);
    check("0 0 *,13 * 5", start, &["2026-03-06T00:00Z"]);
    check("0 0 31 2,4 MON", start, &["2026-04-06T00:00Z"]);
}

#[test]
fn a_line_fires_decades_ahead_or_never() {
    let start = ("UTC", "2026-03-01T00:00Z");
    check(
        "0 0 29 2 */7",
        start,
        &["2032-02-29T00:00Z", "2060-02-29T00:00Z", "2088-02-29T00:00Z", "2128-02-29T00:00Z"],
    );
    check("0 0 31 2 *", start, &["never"]);
    check("0 0 30,31 2 *", ("America/New_York", start.1), &["never"]);
    check("* * 31 4,6,9,11 *", ("Europe/Berlin", start.1), &["never"]);
    // Always in the hour that the clock skips, and an interval does not make up for it.
    check("30 */24 25-31 3 */7", ("Asia/Beirut", start.1), &["never"]);
    check("30 0 25-31 3 */7", ("Asia/Beirut", start.1), &["2026-03-28T22:00Z", "2027-03-27T22:00Z"]);
    check("* * * * *", ("UTC", "9999-12-30T21:59Z"), &["9999-12-30T22:00Z", "never"]);
    check("0 0 1 1 *", ("Europe/Berlin", "9999-06-01T00:00Z"), &["never"]);
}

#[test]
fn a_wall_clock_line_fires_once_for_each_local_time() {
    let new_york = "America/New_York";
    check(
        "30 1,2 * * *",
        (new_york, "2026-03-08T06:00Z"),
        &["2026-03-08T06:30Z", "2026-03-08T07:00Z", "2026-03-09T05:30Z"],
    );
    check("0 2,3 * * *", (new_york, "2026-03-08T06:00Z"), &["2026-03-08T07:00Z", "2026-03-09T06:00Z"]);
    check("*/10 2 * * *", (new_york, "2026-03-08T06:00Z"), &["2026-03-08T07:00Z", "2026-03-09T06:00Z"]);
    check("30 1 * * *", (new_york, "2026-11-01T04:00Z"), &["2026-11-01T05:30Z", "2026-11-02T06:30Z"]);
    // Asked within the second run of the repeated hour.
    check("30 1 * * *", (new_york, "2026-11-01T06:10Z"), &["2026-11-02T06:30Z"]);
    check("*/20 1,2 * * *", (new_york, "2026-11-01T05:30Z"), &["2026-11-01T05:40Z", "2026-11-01T07:00Z"]);
    // Clock changes at midnight, by half an hour, by two hours, by a day.
    check(
        "0 0 * * *",
        ("America/Sao_Paulo", "2018-11-03T12:00Z"),
        &["2018-11-04T03:00Z", "2018-11-05T02:00Z"],
    );
    check("0 0 4 11 *", ("America/Sao_Paulo", "2018-11-03T12:00Z"), &["2018-11-04T03:00Z"]);
    check(
        "30 23 * * *",
        ("America/Sao_Paulo", "2018-02-17T12:00Z"),
        &["2018-02-18T01:30Z", "2018-02-19T02:30Z"],
    );
    check("30 0 * * *", ("Africa/Cairo", "2026-04-23T12:00Z"), &["2026-04-23T22:00Z", "2026-04-24T21:30Z"]);
    check("0 0 * * *", ("Asia/Beirut", "2026-03-28T12:00Z"), &["2026-03-28T22:00Z", "2026-03-29T21:00Z"]);
    check("30 0 * * *", ("America/Havana", "2026-11-01T00:00Z"), &["2026-11-01T04:30Z", "2026-11-02T05:30Z"]);
    check(
        "15 2 * * *",
        ("Australia/Lord_Howe", "2026-10-03T00:00Z"),
        &["2026-10-03T15:30Z", "2026-10-04T15:15Z"],
    );
    check(
        "15 1,2 * * *",
        ("Antarctica/Troll", "2026-03-28T12:00Z"),
        &["2026-03-29T01:00Z", "2026-03-29T23:15Z"],
    );
    check("0 9,15 * * *", ("Pacific/Apia", "2011-12-30T09:00Z"), &["2011-12-30T10:00Z", "2011-12-30T19:00Z"]);
    check("0 0 30 12 *", ("Pacific/Apia", "2011-12-01T00:00Z"), &["2011-12-30T10:00Z", "2012-12-29T10:00Z"]);
}

#[test]
fn an_interval_follows_the_clock_as_it_runs() {
    let new_york = "America/New_York";
    let fold = ["2026-11-01T04:30Z", "2026-11-01T05:30Z", "2026-11-01T06:30Z", "2026-11-01T07:30Z"];
    check("30 * * * *", (new_york, "2026-11-01T04:00Z"), &fold);
    check("30 */1 * * *", (new_york, "2026-11-01T04:00Z"), &fold);
    check("30 0-23 * * *", (new_york, "2026-11-01T04:00Z"), &[fold[0], fold[1], fold[3]]);
    check("0 */2 * * *", (new_york, "2026-03-08T04:30Z"), &["2026-03-08T05:00Z", "2026-03-08T08:00Z"]);
    check(
        "45 * * * *",
        ("Australia/Lord_Howe", "2026-04-04T14:00Z"),
        &["2026-04-04T14:45Z", "2026-04-04T15:15Z", "2026-04-04T16:15Z"],
    );
    check("0 */12 * * *", ("Pacific/Apia", "2011-12-30T00:00Z"), &["2011-12-30T10:00Z", "2011-12-30T22:00Z"]);
    let kinds = [("0 * * * *", false), ("0 */6 * * *", false), ("0 0-23 * * *", true), ("0 *,5 * * *", true)];
    for (line, expected) in kinds.into_iter().chain([("0 */2,5 * * *", true), ("* 5 * * *", true)]) {
        assert_eq!(cron(line).is_wall_clock(), expected, "{line}");
    }
}

#[test]
fn a_clock_change_is_named() {
    let named = |line: &str, zone: &str, at: &str| cron(line).clock_change(&instant(at, zone));
    let new_york = "America/New_York";
    let moved = |nominal: &str| Some(ClockChange::Moved { nominal: nominal.parse().unwrap() });
    assert_eq!(named("30,45 2 * * *", new_york, "2026-03-08T07:00Z"), moved("2026-03-08T02:30"));
    assert_eq!(named("0 3 * * *", new_york, "2026-03-08T07:00Z"), None);
    assert_eq!(named("0 2,3 * * *", new_york, "2026-03-08T07:00Z"), moved("2026-03-08T02:00"));
    assert_eq!(named("0 * * * *", new_york, "2026-03-08T07:00Z"), None);
    assert_eq!(named("30 2 * * *", new_york, "2026-03-09T06:30Z"), None);
    assert_eq!(named("30 1 * * *", new_york, "2026-11-01T05:30Z"), Some(ClockChange::FirstOfTwo));
    assert_eq!(named("30 * * * *", new_york, "2026-11-01T06:30Z"), Some(ClockChange::SecondOfTwo));
    assert_eq!(named("30 1 * * *", "UTC", "2026-11-01T01:30Z"), None);
    assert_eq!(named("0 0 30 12 *", "Pacific/Apia", "2011-12-30T10:00Z"), moved("2011-12-30T00:00"));
}

#[test]
fn times_of_day_are_said_in_words() {
    let said = |line: &str| cron(line).times_of_day().to_string();
    assert_eq!(said("17 */6 * * *"), "at 00:17, 06:17, 12:17, 18:17");
    assert_eq!(said("0 9 1 1 *"), "at 09:00");
    assert_eq!(said("*/15 * * * *"), "every 15 minutes");
    assert_eq!(said("7/15 * * * *"), "every 15 minutes from 00:07");
    assert_eq!(said("* * * * *"), "every minute");
    assert_eq!(said("0 * * * *"), "every hour");
    assert_eq!(said("5 */2 * * *"), "every 2 hours from 00:05");
    assert_eq!(said("20/15 * * * *"), "72 times a day");
    assert_eq!(said("0,30 8-17 * * *"), "20 times a day");
    assert!(cron("0 0 * * *").is_daily() && !cron("0 0 1 * *").is_daily());
}

#[test]
fn zones_are_iana_names() {
    assert!(time_zone("Europe/Berlin").is_ok());
    assert_eq!(time_zone("Europe/Berln"), Err(vec!["Europe/Berlin".to_owned()]));
}

/// Zones, and an instant near a change of their clocks.
const CHANGES: &[(&str, &str)] = &[
    ("UTC", "2026-03-01T00:00Z"),
    ("America/New_York", "2026-03-08T07:00Z"),
    ("America/New_York", "2026-11-01T06:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T15:30Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00Z"),
    ("Pacific/Apia", "2011-12-30T10:00Z"),
    ("Pacific/Kwajalein", "1993-08-21T12:00Z"),
    ("Pacific/Kwajalein", "1969-09-30T13:00Z"),
    ("America/Sao_Paulo", "2018-11-04T03:00Z"),
    ("America/Sao_Paulo", "2018-02-18T02:00Z"),
    ("Africa/Cairo", "2026-04-23T22:00Z"),
    ("Asia/Beirut", "2026-10-24T21:00Z"),
    ("America/Havana", "2026-03-08T05:00Z"),
    ("America/Havana", "2026-11-01T05:00Z"),
    ("America/St_Johns", "2006-10-29T02:31Z"),
    ("Antarctica/Troll", "2026-03-29T01:00Z"),
    ("Africa/Casablanca", "2026-03-22T02:00Z"),
    ("Europe/London", "2028-02-29T00:00Z"),
];

/// Whether a field of numbers names a value, read item by item.
fn names(field: &str, value: i8, most: i8) -> bool {
    field.split(',').any(|item| {
        let (range, step) = item.split_once('/').unwrap_or((item, ""));
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (i8::from(most == 12 || most == 31), most),
            Some((from, to)) => (from.parse().unwrap(), to.parse().unwrap()),
            None => (range.parse().unwrap(), if step.is_empty() { range.parse().unwrap() } else { most }),
        };
        value >= from && value <= to && (value - from) % step.parse().unwrap_or(1) == 0
    })
}

/// Whether a line names a local time.
fn names_time(fields: &[String], at: DateTime) -> bool {
    let weekday = at.weekday().to_sunday_zero_offset();
    let is_weekday = names(&fields[4], weekday, 7) || (weekday == 0 && names(&fields[4], 7, 7));
    let is_day = names(&fields[2], at.day(), 31);
    let is_open = fields[2].starts_with('*') || fields[4].starts_with('*');
    names(&fields[0], at.minute(), 59)
        && names(&fields[1], at.hour(), 23)
        && names(&fields[3], at.month(), 12)
        && if is_open { is_day && is_weekday } else { is_day || is_weekday }
}

/// The instants of a line from one instant up to another, found by looking at every minute.
fn slowly(fields: &[String], from: &Zoned, until: Timestamp) -> Vec<Timestamp> {
    let is_interval = fields[1] == "*" || (fields[1].starts_with("*/") && !fields[1].contains(','));
    let zone = from.time_zone();
    let minute = SignedDuration::from_mins(1);
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    let mut at = from.timestamp() - minute;
    let mut shown = zone.to_datetime(at);
    while at < until {
        at += minute;
        let local = zone.to_datetime(at);
        let mut fires = names_time(fields, local) && (is_interval || seen.insert(local));
        let mut skipped = shown + minute;
        while !is_interval && skipped < local {
            fires |= names_time(fields, skipped);
            skipped += minute;
        }
        shown = local;
        if fires {
            found.push(at);
        }
    }
    found
}

/// The text of a field whose values lie in a range.
fn field(least: i8, most: i8) -> impl Strategy<Value = String> {
    let item = (0..8, least..=most, least..=most, 1..=(most / 2 + 1)).prop_map(|(kind, a, b, step)| {
        let (from, to) = (a.min(b), a.max(b));
        match kind {
            0 | 1 => "*".to_owned(),
            2 => format!("*/{step}"),
            3 => format!("{a}/{step}"),
            4 => format!("{from}-{to}"),
            5 => format!("{from}-{to}/{step}"),
            _ => a.to_string(),
        }
    });
    prop::collection::vec(item, 1..3).prop_map(|items| items.join(","))
}

fn line() -> impl Strategy<Value = Vec<String>> {
    let hours = prop_oneof![field(0, 23), field(0, 3), Just("*".to_owned())];
    let months = prop_oneof![Just("*".to_owned()), field(1, 12)];
    (field(0, 59), hours, field(1, 31), months, field(0, 7))
        .prop_map(|(minute, hour, day, month, weekday)| vec![minute, hour, day, month, weekday])
}

proptest! {
    #[test]
    fn never_panics(line in "[0-9*/,a-zA-Z@ é-]{0,30}", second in -377_705_023_201..253_402_207_200_i64) {
        if let Ok(cron) = Cron::parse(&line) {
            let at = Timestamp::from_second(second).unwrap().to_zoned(time_zone("Europe/Berlin").unwrap());
            let _ = cron.after(&at).take(2).count();
        }
    }

    #[test]
    fn lines_that_are_well_formed_never_panic(fields in line(), second in -377_705_023_201..253_402_207_200_i64) {
        let at = Timestamp::from_second(second).unwrap().to_zoned(time_zone("Europe/Berlin").unwrap());
        let fires: Vec<Zoned> = cron(&fields.join(" ")).after(&at).take(3).collect();
        prop_assert!(std::iter::once(&at).chain(&fires).is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn every_instant_is_found_and_no_other(fields in line(), change in 0..CHANGES.len(), late in 0..6_000_i64) {
        let (zone, near) = CHANGES[change];
        let near = instant(near, zone);
        let start = &near - 50.hours();
        let until = (&near + 40.hours()).timestamp();
        let after = &start + SignedDuration::from_secs(late * 60 + late % 60);
        let expected: Vec<Timestamp> = slowly(&fields, &start, until)
            .into_iter()
            .filter(|at| *at > after.timestamp())
            .collect();
        let cron = cron(&fields.join(" "));
        let found: Vec<Timestamp> =
            cron.after(&after).map(|at| at.timestamp()).take_while(|at| *at <= until).collect();
        prop_assert_eq!(found, expected, "{} in {} after {}", cron.as_str(), zone, after);
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long the search takes is what is tested")]
fn the_search_is_quick() {
    let began = std::time::Instant::now();
    let start = instant("2026-03-01T00:00Z", "America/New_York");
    for line in ["* * * * *", "*/2 0-23 * * *"] {
        assert_eq!(cron(line).after(&start).take(20_000).count(), 20_000);
    }
    for line in ["0 0 31 2 *", "* * 30 2 *", "30 */24 25-31 3 */7"] {
        assert_eq!(cron(line).next_after(&start.with_time_zone(time_zone("Asia/Beirut").unwrap())), None);
    }
    // A hundredth of this on an idle machine.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}
