//! What `plan-confirm` and `rank` rest on, read from where earlier stages left it.

use std::collections::BTreeMap;

use super::{JobContext, StageError, load, load_columns};
use crate::judge::{Confirm, Floors, ScorePolicy, Speeds, Standings, TimedRead, uncounted};
use crate::model::{CommitmentRow, Fault, ReadRow, Reason, RequestTimes, SubmissionRow, VerdictRow};
use crate::pipeline::stage::benchmark::MeasuredLeg;
use crate::pipeline::stage::{Handle, fetch_commitments, verify_logprobs};

/// The legs of one look, and the verdicts on their answers; none where nothing was to be judged.
pub(super) type Look<'a> = (&'a [MeasuredLeg], Option<&'a Handle<verify_logprobs::Output>>);

/// All rows that a place rests on.
pub(super) struct Ranking {
    pub(super) commitments: Vec<CommitmentRow>,
    pub(super) submissions: Vec<SubmissionRow>,
    pub(super) verdicts: Vec<VerdictRow>,
    /// One row for each leg, measured or not.
    pub(super) reads: Vec<ReadRow>,
    /// The requests of each measured read, by its key. Its answers, many times as large, do not enter its speed.
    pub(super) requests: BTreeMap<String, Vec<RequestTimes>>,
}

impl Ranking {
    /// Reads them.
    pub(super) fn load(
        commitments: &Handle<fetch_commitments::Output>,
        looks: &[Look<'_>],
        context: &JobContext<'_>,
    ) -> Result<Self, StageError> {
        let (mut verdicts, mut reads, mut requests) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (legs, handle) in looks {
            if let Some(handle) = handle {
                verdicts.extend(load::<VerdictRow, _>(context, handle, "verdicts.parquet")?);
            }
            reads.extend(read_rows_of(legs, context)?);
            for leg in *legs {
                if let Some(data) = &leg.outputs.data {
                    let rows = load_columns(context, data, "requests.parquet")?;
                    requests.insert(leg.matrix.read.key.clone(), rows);
                }
            }
        }
        Ok(Self {
            commitments: load(context, commitments, "commitments.parquet")?,
            submissions: load(context, commitments, "submissions.parquet")?,
            verdicts,
            reads,
            requests,
        })
    }

    /// What the floors of the runners say of all reads.
    pub(super) fn floors(&self, policy: &ScorePolicy) -> Floors {
        let of_read = |key: &str| self.requests.get(key).map_or(&[][..], Vec::as_slice);
        Floors::of(policy.floor, &self.reads, of_read)
    }

    /// What everybody's place rests on: these rows, what the floors say of them, the speeds of the first look, and the second one
    /// where the round has come so far.
    pub(super) fn standings<'a>(
        &'a self,
        round_id: &'a str,
        (floors, measure): (&'a Floors, &'a Speeds<'a>),
        confirm: Option<Confirm<'a>>,
    ) -> Standings<'a> {
        let Self { commitments, submissions, verdicts, reads, .. } = self;
        Standings { round_id, submissions, commitments, reads, verdicts, floors, measure, confirm }
    }

    /// The measured reads among these legs that count, with their times.
    pub(super) fn timed<'a>(&'a self, legs: &'a [MeasuredLeg]) -> Vec<TimedRead<'a>> {
        let uncounted = uncounted(&self.reads);
        let counts = |leg: &&'a MeasuredLeg| !uncounted.contains(leg.matrix.read.key.as_str());
        let timed = |leg: &'a MeasuredLeg| {
            let spec = &leg.matrix.read;
            Some(TimedRead::of(spec, self.requests.get(&spec.key)?))
        };
        legs.iter().filter(counts).filter_map(timed).collect()
    }
}

/// One row for each read: what the benchmark left, or what is known of one that did not come so far.
fn read_rows_of(legs: &[MeasuredLeg], context: &JobContext<'_>) -> Result<Vec<ReadRow>, StageError> {
    let mut rows = Vec::with_capacity(legs.len());
    for leg in legs {
        if let Some(data) = &leg.outputs.data {
            rows.extend(load::<ReadRow, _>(context, data, "read.parquet")?);
            continue;
        }
        let unexplained = || Reason::new(Fault::Unknown, "not-measured", "the read ended without a reason");
        let reason = leg.reason.clone().unwrap_or_else(unexplained);
        rows.push(ReadRow {
            attempt: leg.attempt,
            runner: leg.runner.clone(),
            started_at_us: leg.started_at_us,
            fault: Some(reason.fault),
            reason: Some(reason.code),
            detail: Some(reason.message),
            ..ReadRow::planned(&context.round.round_id, &leg.matrix.read)
        });
    }
    Ok(rows)
}
