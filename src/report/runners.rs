//! Runners, and whether they are in service, as `cacheon runner` tells it.

use comfy_table::{Cell, Color};
use serde::Serialize;

use super::query_output::{JsonLayout, json};
use super::text::{RowLines, TextStyle, coloured, excerpt, instant, render, right, table};
use crate::artifact::{FailedRead, PastQuarantine, Quarantine, QuarantineCause, RunnerState};

/// A runner: its file, what is known of it from round to round, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRunner {
    /// What its file says; none where there is no such file any more.
    pub said: Option<RunnerWords>,
    /// Whether it is in service, and when it was not.
    pub state: RunnerState,
}

/// What a runner's file says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunnerWords {
    /// What boots servers there.
    pub engine: &'static str,
    /// Where its jobs run.
    pub place: &'static str,
    /// Its labels.
    pub labels: Vec<String>,
    /// How many jobs run at once.
    pub capacity: u32,
}

/// Since when a runner is out of service, and why: one sentence without its end.
pub fn quarantine_sentence(runner: &str, quarantine: &Quarantine) -> String {
    let (runner, since) = (excerpt(runner, 100), instant(&quarantine.since.to_string()));
    format!("runner `{runner}` is out of service since {since}: {}", why(quarantine))
}

/// Why a runner is out of service.
fn why(quarantine: &Quarantine) -> String {
    match &quarantine.cause {
        QuarantineCause::Hand { reason } => format!("by hand: {}", excerpt(reason, 400)),
        QuarantineCause::Round { round_id, reads } => {
            let first = reads.first().map(read_words).unwrap_or_default();
            let others = match reads.len() {
                0 | 1 => String::new(),
                count => format!(", and {} more", count - 1),
            };
            format!(
                "in round `{round_id}` the baseline failed on it and was not measured there afterwards ({first}{others})"
            )
        }
    }
}

fn read_words(read: &FailedRead) -> String {
    let (leg, code) = (excerpt(&read.leg, 100), excerpt(&read.code, 60));
    format!("read `{leg}`: {code}: {}", excerpt(&read.message, 400))
}

/// What a quarantine was that was lifted: one sentence without its end.
pub fn past_sentence(past: &PastQuarantine) -> String {
    let PastQuarantine { quarantine, lifted_at, reason } = past;
    let (since, until) = (instant(&quarantine.since.to_string()), instant(&lifted_at.to_string()));
    let reason = reason.as_ref().map(|reason| format!("; lifted: {}", excerpt(reason, 400)));
    format!("from {since} to {until}: {}{}", why(quarantine), reason.unwrap_or_default())
}

/// The runners for people, a line each.
pub fn runners_table(runners: &[KnownRunner], style: TextStyle) -> String {
    let mut out = table(style, RowLines::One);
    let header = ["runner", "engine", "place", "labels"].map(Cell::new);
    out.set_header(header.into_iter().chain([right("capacity"), Cell::new("service")]));
    for KnownRunner { said, state } in runners {
        let of = |text: fn(&RunnerWords) -> String| said.as_ref().map_or_else(|| "-".to_owned(), text);
        let service = match &state.quarantine {
            None => Cell::new("in service"),
            Some(quarantine) => {
                let since = instant(&quarantine.since.to_string());
                let text = format!("quarantined since {since}: {}", why(quarantine));
                coloured(excerpt(&text, 600), Color::Red)
            }
        };
        out.add_row([
            Cell::new(excerpt(&state.runner, 100)),
            Cell::new(of(|said| said.engine.to_owned())),
            Cell::new(of(|said| said.place.to_owned())),
            Cell::new(of(|said| said.labels.join(", "))),
            right(of(|said| said.capacity.to_string())),
            service,
        ]);
    }
    render(&out)
}

#[derive(Serialize)]
struct RunnerJson<'a> {
    name: &'a str,
    engine: Option<&'static str>,
    place: Option<&'static str>,
    labels: Option<&'a [String]>,
    capacity: Option<u32>,
    is_in_service: bool,
    quarantine: Option<&'a Quarantine>,
    history: &'a [PastQuarantine],
}

/// The runners as a JSON array of objects.
pub fn runners_json(runners: &[KnownRunner]) -> String {
    let row = |KnownRunner { said, state }: &'_ KnownRunner| -> serde_json::Value {
        let said = said.as_ref();
        serde_json::json!(RunnerJson {
            name: &state.runner,
            engine: said.map(|said| said.engine),
            place: said.map(|said| said.place),
            labels: said.map(|said| said.labels.as_slice()),
            capacity: said.map(|said| said.capacity),
            is_in_service: state.quarantine.is_none(),
            quarantine: state.quarantine.as_ref(),
            history: &state.history,
        })
    };
    json(&runners.iter().map(row).collect::<Vec<_>>(), JsonLayout::Pretty)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runners() -> Vec<KnownRunner> {
        let said = |labels: &[&str]| {
            let labels = labels.iter().map(ToString::to_string).collect();
            Some(RunnerWords { engine: "docker", place: "local", labels, capacity: 1 })
        };
        let at = |text: &str| text.parse().expect("an instant");
        let read = |leg: &str| FailedRead {
            job: "measure".to_owned(),
            leg: leg.to_owned(),
            attempt: 2,
            code: "server-exited".to_owned(),
            message: "the server ended with signal 9\n\u{1b}[2J; its last words: (nothing)".to_owned(),
        };
        let reads = vec![read("0002-baseline"), read("0004-baseline")];
        let mut broken = RunnerState::unknown("h200");
        broken.put_out(Quarantine::by_hand(at("2026-04-01T00:00:00Z"), "a new driver"));
        broken.lift(at("2026-04-02T00:00:00Z"), Some("installed"));
        let round_id = "evaluation-1".parse().expect("an id");
        broken.put_out(Quarantine::by_round(at("2026-05-01T10:00:00.5Z"), round_id, reads));
        let mut gone = RunnerState::unknown("gone");
        gone.put_out(Quarantine::by_hand(at("2026-04-01T00:00:00Z"), "sold"));
        vec![
            KnownRunner { said: said(&["h200", "gpu"]), state: broken },
            KnownRunner { said: said(&["here"]), state: RunnerState::unknown("here") },
            KnownRunner { said: None, state: gone },
        ]
    }

    #[test]
    fn the_list() {
        let runners = runners();
        insta::assert_snapshot!("runners", runners_table(&runners, TextStyle::PLAIN));
        insta::assert_snapshot!("runners_json", runners_json(&runners));
    }

    #[test]
    fn sentences() {
        let runners = runners();
        let state = &runners[0].state;
        let quarantine = state.quarantine.as_ref().expect("it is out");
        assert_eq!(
            quarantine_sentence("h200", quarantine),
            "runner `h200` is out of service since 2026-05-01T10:00:00Z: in round `evaluation-1` the baseline failed on it and \
             was not measured there afterwards (read `0002-baseline`: server-exited: the server ended with signal 9 [2J; its \
             last words: (nothing), and 1 more)"
        );
        assert_eq!(
            past_sentence(&state.history[0]),
            "from 2026-04-01T00:00:00Z to 2026-04-02T00:00:00Z: by hand: a new driver; lifted: installed"
        );
    }
}
