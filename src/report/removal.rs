//! What `cacheon gc` removes, or would remove, and what stays for which reason.

use comfy_table::{Cell, Color};
use serde::Serialize;

use super::query_output::{JsonLayout, json};
use super::text::{RowLines, TextStyle, bytes, coloured, excerpt, render, right, table};
use crate::artifact::{Extent, StayReason};
use crate::model::RoundId;

/// What goes of one round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Going {
    /// Id of the round.
    pub round_id: RoundId,
    /// `streams` or `round`.
    pub what: Extent,
    /// Number of its files that go.
    pub files: u64,
    /// Number of their bytes.
    pub bytes: u64,
}

/// A round that stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staying {
    /// Id of the round.
    pub round_id: RoundId,
    /// Why it stays.
    pub reason: StayReason,
}

/// What is left of a round whose removal was cut short, or what a check handed to one that is gone; it goes too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leftover {
    /// Id of the round that it was.
    pub round_id: RoundId,
    /// Path of what is left.
    pub path: String,
}

/// What was to be removed and was not, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemovalFailure {
    /// Id of the round.
    pub round_id: RoundId,
    /// Why, in words.
    pub why: String,
}

/// What goes and what stays, by the ids of the rounds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemovalPlan {
    /// What goes.
    pub goes: Vec<Going>,
    /// What stays.
    pub stays: Vec<Staying>,
    /// What earlier removals left.
    pub leftovers: Vec<Leftover>,
    /// What checks handed to rounds that go, or are gone.
    pub checks: Vec<Leftover>,
}

/// What came of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal<'a> {
    /// Nothing was touched.
    DryRun,
    /// It was carried out but for these.
    Done(&'a [RemovalFailure]),
}

impl Removal<'_> {
    fn failures(&self) -> &[RemovalFailure] {
        match self {
            Self::DryRun => &[],
            Self::Done(failures) => failures,
        }
    }

    fn failure(&self, round_id: &RoundId) -> Option<&RemovalFailure> {
        self.failures().iter().find(|failure| failure.round_id == *round_id)
    }
}

const fn word(extent: Extent) -> &'static str {
    match extent {
        Extent::Streams => "streams",
        Extent::Rounds => "round",
    }
}

/// The list for people: a line a round, what goes first; empty where there is nothing.
pub fn removal_table(plan: &RemovalPlan, removal: Removal<'_>, style: TextStyle) -> String {
    let RemovalPlan { goes, stays, leftovers, checks } = plan;
    if goes.is_empty() && stays.is_empty() && leftovers.is_empty() && checks.is_empty() {
        return String::new();
    }
    let mut out = table(style, RowLines::One);
    out.set_header([Cell::new("round"), Cell::new("goes"), right("files"), right("size"), Cell::new("why")]);
    let rests = leftovers.iter().map(|rest| (rest, "rest", "left by a removal that was cut short"));
    let handed = checks.iter().map(|rest| (rest, "check", "what a check handed to the round"));
    for (rest, what, why) in rests.chain(handed) {
        let why = removal.failure(&rest.round_id).map_or(why, |failure| &failure.why);
        out.add_row([
            Cell::new(&rest.round_id),
            Cell::new(what),
            right("-"),
            right("-"),
            Cell::new(excerpt(why, 200)),
        ]);
    }
    for going in goes {
        let failure = removal.failure(&going.round_id);
        out.add_row([
            Cell::new(&going.round_id),
            match failure {
                Some(_) => coloured("failed", Color::Red),
                None => coloured(word(going.what), Color::Yellow),
            },
            right(going.files),
            right(bytes(going.bytes)),
            Cell::new(failure.map_or_else(String::new, |failure| excerpt(&failure.why, 200))),
        ]);
    }
    for staying in stays {
        out.add_row([
            Cell::new(&staying.round_id),
            Cell::new("-"),
            right("-"),
            right("-"),
            Cell::new(excerpt(&staying.reason.to_string(), 200)),
        ]);
    }
    render(&out)
}

#[derive(Serialize)]
struct StayingJson<'a> {
    round_id: &'a RoundId,
    reason: &'static str,
    why: String,
}

#[derive(Serialize)]
struct RemovalJson<'a> {
    dry_run: bool,
    goes: Vec<&'a Going>,
    stays: Vec<StayingJson<'a>>,
    leftovers: Vec<&'a Leftover>,
    checks: Vec<&'a Leftover>,
    failed: &'a [RemovalFailure],
    files: u64,
    bytes: u64,
}

/// The list as a JSON object: what goes or went, what stays, what failed, and the sums of what goes or went.
pub fn removal_json(plan: &RemovalPlan, removal: Removal<'_>) -> String {
    let goes: Vec<&Going> = went(plan, removal).collect();
    let stays = plan.stays.iter().map(|staying| StayingJson {
        round_id: &staying.round_id,
        reason: staying.reason.as_str(),
        why: staying.reason.to_string(),
    });
    let value = RemovalJson {
        dry_run: removal == Removal::DryRun,
        files: goes.iter().map(|going| going.files).sum(),
        bytes: goes.iter().map(|going| going.bytes).sum(),
        goes,
        stays: stays.collect(),
        leftovers: rests(&plan.leftovers, removal),
        checks: rests(&plan.checks, removal),
        failed: removal.failures(),
    };
    json(&value, JsonLayout::Pretty)
}

fn rests<'a>(rests: &'a [Leftover], removal: Removal<'_>) -> Vec<&'a Leftover> {
    rests.iter().filter(|rest| removal.failure(&rest.round_id).is_none()).collect()
}

fn went<'a>(plan: &'a RemovalPlan, removal: Removal<'a>) -> impl Iterator<Item = &'a Going> {
    plan.goes.iter().filter(move |going| removal.failure(&going.round_id).is_none())
}

/// One sentence that sums it up.
pub fn removal_sentence(plan: &RemovalPlan, removal: Removal<'_>) -> String {
    let verb = if removal == Removal::DryRun { "would go" } else { "went" };
    let (mut rounds, mut files, mut size) = (0_u64, 0, 0);
    for going in went(plan, removal) {
        (rounds, files, size) = (rounds + 1, files + going.files, size + going.bytes);
    }
    let plural = |count: u64| if count == 1 { "" } else { "s" };
    let checks = match plan.checks.len() {
        0 => String::new(),
        count => format!(" and what {count} check{} handed over", plural(count as u64)),
    };
    format!(
        "{files} file{} of {rounds} round{}{checks} {verb}, {}; {} stay{}",
        plural(files),
        plural(rounds),
        bytes(size),
        plan.stays.len(),
        if plan.stays.len() == 1 { "s" } else { "" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> RemovalPlan {
        let id = |text: &str| text.parse().expect("an id");
        let going = |name, what, bytes| Going { round_id: id(name), what, files: 12, bytes };
        RemovalPlan {
            goes: vec![going("demo-1", Extent::Rounds, 42_000_000), going("demo-2", Extent::Rounds, 512)],
            stays: vec![
                Staying { round_id: id("demo-3"), reason: StayReason::Unsealed },
                Staying { round_id: id("demo-4"), reason: StayReason::Newest(1) },
            ],
            leftovers: vec![Leftover {
                round_id: id("demo-0"),
                path: "rounds/.part-removed-demo-0".to_owned(),
            }],
            checks: vec![Leftover { round_id: id("demo-1"), path: "checks/demo-1".to_owned() }],
        }
    }

    #[test]
    fn the_list() {
        let failures = [RemovalFailure {
            round_id: "demo-2".parse().expect("an id"),
            why: "cannot remove `a`: denied".to_owned(),
        }];
        for (name, removal) in [("dry", Removal::DryRun), ("done", Removal::Done(&failures))] {
            let text = removal_table(&plan(), removal, TextStyle::PLAIN);
            let sentence = removal_sentence(&plan(), removal);
            insta::assert_snapshot!(format!("removal_{name}"), format!("{text}\n{sentence}"));
        }
        insta::assert_snapshot!("removal_json", removal_json(&plan(), Removal::Done(&failures)));
        assert_eq!(removal_table(&RemovalPlan::default(), Removal::DryRun, TextStyle::PLAIN), "");
    }
}
