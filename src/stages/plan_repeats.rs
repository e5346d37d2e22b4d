//! `plan-repeats`: lays out reads for those that the machine lost.
//!
//! `B C1 B C2 B ..`, as the first look: each repeat has a bracket of its own with prompts that nobody has seen, between fresh
//! launches of the baseline. It is planned once for a look; a repeat that is lost is not repeated.

use super::plan_reads::{Candidate, InTurn, check_brackets};
use std::collections::BTreeMap;

use super::{JobContext, StageError, load_columns};
use crate::judge::{EndedRead, LookReads, ScorePolicy, TimedRead, to_repeat};
use crate::model::{ReadSpec, RequestTimes};
use crate::pipeline::stage::benchmark::MeasuredLeg;
use crate::pipeline::stage::plan_repeats::{Output, Parameters};

pub(super) fn run(parameters: &Parameters, context: &JobContext<'_>) -> Result<Output, StageError> {
    let (legs, score) = (&parameters.reads, &parameters.score);
    let drifts = drifts(legs, score, context)?;
    let ended: Vec<EndedRead<'_>> = legs
        .iter()
        .map(|leg| EndedRead {
            spec: &leg.matrix.read,
            is_measured: leg.outputs.data.is_some(),
            reason: leg.reason.as_ref(),
            drift: drifts.get(leg.matrix.read.key.as_str()).copied(),
        })
        .collect();
    let lost = to_repeat(&ended, score.max_drift);
    let first = legs.first_bracket_after();
    if !lost.is_empty() {
        check_brackets((1, lost.len()), first)?;
    }
    let repeated: Vec<String> = lost.iter().map(|spec| spec.key.clone()).collect();
    let candidates: Vec<Candidate<'_>> = lost
        .iter()
        .map(|ReadSpec { key, hotkey, image, digest, .. }| Candidate {
            hotkey: hotkey.as_ref(),
            image,
            digest,
            repeats: Some(key),
        })
        .collect();
    // Brackets are counted over the whole round, so these names are its only ones.
    let (prefix, sequence) = (format!("repeat-{first:04}-"), format!("repeat-{first}"));
    let layout = InTurn { baseline: &parameters.baseline, prefix: &prefix, sequence: &sequence, first };
    let reads = layout.plan(&candidates);
    if !repeated.is_empty() {
        tracing::info!(
            job = context.job,
            reads = repeated.join(", "),
            "to be measured again with fresh prompts"
        );
    }
    Ok(Output { count: reads.len() as u64, reads, repeated })
}

/// By how much the baselines on the two sides of each measured read differ, by its key.
fn drifts<'a>(
    legs: &'a [MeasuredLeg],
    score: &ScorePolicy,
    context: &JobContext<'_>,
) -> Result<BTreeMap<&'a str, f64>, StageError> {
    let mut measured: Vec<(&ReadSpec, Vec<RequestTimes>)> = Vec::new();
    for leg in legs {
        if let Some(data) = &leg.outputs.data {
            measured.push((&leg.matrix.read, load_columns(context, data, "requests.parquet")?));
        }
    }
    let timed: Vec<TimedRead<'_>> =
        measured.iter().map(|(spec, requests)| TimedRead::of(spec, requests)).collect();
    let drifts = LookReads::of(score, &timed).drifts(score);
    let of_key = |((spec, _), drift): (&(&'a ReadSpec, _), Option<f64>)| Some((spec.key.as_str(), drift?));
    Ok(measured.iter().zip(drifts).filter_map(of_key).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::stage::plan_reads::Baseline;

    #[test]
    fn each_repeat_has_fresh_prompts_between_fresh_baselines_and_names_what_it_is_for() {
        let digest = |digit: &str| format!("sha256:{}", digit.repeat(64)).parse().expect("digest");
        let baseline = Baseline { image: "base".parse().expect("image"), digest: digest("1") };
        let (hotkey, image, own) = (
            format!("5{}", "A".repeat(47)).parse().expect("hotkey"),
            "m/image".parse().expect("image"),
            digest("0"),
        );
        let candidate = |repeats| Candidate { hotkey: Some(&hotkey), image: &image, digest: &own, repeats };
        let layout = InTurn { baseline: &baseline, prefix: "repeat-0007-", sequence: "repeat-7", first: 7 };
        let reads = layout.plan(&[candidate(Some("0001-a")), candidate(Some("0003-b"))]);
        let shown: Vec<(&str, &[u32], Option<&str>)> = reads
            .iter()
            .map(|read| (read.key.as_str(), read.brackets.as_slice(), read.repeats.as_deref()))
            .collect();
        let expected: [(&str, &[u32], Option<&str>); 5] = [
            ("repeat-0007-0000-baseline", &[7], None),
            ("repeat-0007-0001-5AAAAAAA", &[7], Some("0001-a")),
            ("repeat-0007-0002-baseline", &[7, 8], None),
            ("repeat-0007-0003-5AAAAAAA", &[8], Some("0003-b")),
            ("repeat-0007-0004-baseline", &[8], None),
        ];
        assert_eq!(shown, expected);
        assert!(reads.iter().all(|read| read.sequence == "repeat-7"));
        assert_eq!(layout.plan(&[]), []);
    }
}
