//! Which commitments become submissions: strangers' entries in, rows and checked submissions out.
//!
//! Every entry ends as a row with what became of it. The rules: of one hotkey the latest commitment
//! counts, at the block at which the hotkey first committed that digest; of one digest under one name the earliest counts.
//! The same digest under another name may be there while the first is not, so both become submissions: which of them is a
//! copy is said when both were pulled (`judge`).

use std::collections::BTreeMap;

use serde_json::Value;

use super::{CommitmentRow, Digest, Hotkey, IgnoreReason, ImageReference, Submission};

/// A payload longer than this is not read; the chain itself holds about 1 KiB.
const MAX_PAYLOAD_BYTES: usize = 4096;

/// What became of the entries of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct Admission {
    /// One row for each entry, in the order of the source.
    pub commitments: Vec<CommitmentRow>,
    /// The accepted commitments, the earliest first.
    pub submissions: Vec<Submission>,
}

/// One entry as it was written, before any of it is believed.
struct RawCommitment {
    hotkey: String,
    uid: Option<u32>,
    block: Option<i64>,
    image: Option<String>,
    digest: Option<String>,
}

/// Judges all entries of a source.
pub fn admit(round_id: &str, entries: &[Value]) -> Admission {
    let mut commitments = Vec::with_capacity(entries.len());
    let mut candidates: Vec<(usize, Submission)> = Vec::new();
    for (position, entry) in entries.iter().enumerate() {
        let raw = raw_commitment(entry);
        let checked = raw.as_ref().map_err(Clone::clone).and_then(checked_submission);
        commitments.push(row(round_id, (position, entry), raw.ok(), checked.as_ref().err()));
        if let Ok(submission) = checked {
            candidates.push((position, submission));
        }
    }
    let mut ignore = |position: usize, reason: &IgnoreReason| {
        let row: &mut CommitmentRow = &mut commitments[position];
        row.is_accepted = false;
        row.ignored_code = Some(reason.code());
        row.ignored_reason = Some(reason.to_string());
    };

    // Who commits a digest again has had it since the first time; else a copy in between would be the earlier one.
    let mut first_blocks: BTreeMap<(Hotkey, Digest), i64> = BTreeMap::new();
    for (_, submission) in &candidates {
        let own = (submission.hotkey.clone(), submission.digest.clone());
        let first = first_blocks.entry(own).or_insert(submission.block);
        *first = (*first).min(submission.block);
    }
    let mut latest: BTreeMap<Hotkey, (i64, usize)> = BTreeMap::new();
    for (position, submission) in &candidates {
        let entry = latest.entry(submission.hotkey.clone()).or_insert((submission.block, *position));
        *entry = (*entry).max((submission.block, *position));
    }
    candidates.retain(|(position, submission)| {
        let (later_block, winner) = latest[&submission.hotkey];
        if winner != *position {
            ignore(*position, &IgnoreReason::Superseded { later_block });
        }
        winner == *position
    });

    for (_, submission) in &mut candidates {
        let own = (submission.hotkey.clone(), submission.digest.clone());
        submission.block = first_blocks.get(&own).copied().unwrap_or(submission.block);
    }
    candidates.sort_by_key(|(position, submission)| (submission.block, *position));
    let mut first_of: BTreeMap<(ImageReference, Digest), (Hotkey, i64)> = BTreeMap::new();
    candidates.retain(|(position, submission)| {
        if let Some((first, first_block)) =
            first_of.get(&(submission.image.clone(), submission.digest.clone()))
        {
            ignore(
                *position,
                &IgnoreReason::DuplicateDigest { first: first.clone(), first_block: *first_block },
            );
            return false;
        }
        first_of.insert(
            (submission.image.clone(), submission.digest.clone()),
            (submission.hotkey.clone(), submission.block),
        );
        true
    });
    Admission { commitments, submissions: candidates.into_iter().map(|(_, submission)| submission).collect() }
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(|text| text.trim().to_owned())
}

/// Reads an entry `{hotkey, block, uid?, payload}` or `{hotkey, block, uid?, image, digest}`; a payload is
/// the JSON text `{"image": .., "digest": ..}` as miners commit it.
fn raw_commitment(entry: &Value) -> Result<RawCommitment, IgnoreReason> {
    let payload = |why: &str| IgnoreReason::Payload(why.to_owned());
    if !entry.is_object() {
        return Err(payload("the entry is not a mapping"));
    }
    let hotkey = text(entry, "hotkey").ok_or_else(|| payload("`hotkey` is missing or not a string"))?;
    let inner;
    let source = match entry.get("payload") {
        None => entry,
        Some(Value::String(json)) if json.len() > MAX_PAYLOAD_BYTES => {
            return Err(payload(&format!(
                "it has {} bytes, at most {MAX_PAYLOAD_BYTES} are read",
                json.len()
            )));
        }
        Some(Value::String(json)) => {
            inner = serde_json::from_str::<Value>(json)
                .map_err(|error| payload(&format!("not JSON: {error}")))?;
            &inner
        }
        Some(_) => return Err(payload("`payload` is not a string")),
    };
    Ok(RawCommitment {
        hotkey,
        uid: entry.get("uid").and_then(Value::as_u64).and_then(|uid| u32::try_from(uid).ok()),
        block: entry.get("block").and_then(Value::as_i64).filter(|block| *block >= 0),
        image: text(source, "image"),
        digest: text(source, "digest"),
    })
}

fn checked_submission(raw: &RawCommitment) -> Result<Submission, IgnoreReason> {
    let missing = |key: &str| IgnoreReason::Payload(format!("`{key}` is missing or has the wrong type"));
    let image = raw.image.as_deref().ok_or_else(|| missing("image"))?;
    let digest = raw.digest.as_deref().ok_or_else(|| missing("digest"))?;
    Ok(Submission {
        hotkey: raw.hotkey.parse::<Hotkey>()?,
        uid: raw.uid,
        block: raw.block.ok_or_else(|| missing("block"))?,
        image: without_tag(image).parse::<ImageReference>()?,
        digest: digest.parse::<Digest>()?,
    })
}

/// The name of an image without its tag: the digest is what is run, so the tag says nothing.
fn without_tag(image: &str) -> &str {
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') && !name.is_empty() => name,
        _ => image,
    }
}

fn row(
    round_id: &str,
    (position, entry): (usize, &Value),
    raw: Option<RawCommitment>,
    error: Option<&IgnoreReason>,
) -> CommitmentRow {
    let cut = |text: String, limit: usize| -> String {
        text.chars().filter(|c| !c.is_control()).take(limit).collect()
    };
    let hotkey =
        raw.as_ref().map(|raw| raw.hotkey.clone()).or_else(|| text(entry, "hotkey")).unwrap_or_default();
    CommitmentRow {
        round_id: round_id.to_owned(),
        position: position as u32,
        hotkey: cut(hotkey, 80),
        block: raw.as_ref().and_then(|raw| raw.block),
        image: raw.as_ref().and_then(|raw| raw.image.clone()).map(|image| cut(image, 255)),
        digest: raw.and_then(|raw| raw.digest).map(|digest| cut(digest, 80)),
        is_accepted: error.is_none(),
        ignored_code: error.map(IgnoreReason::code),
        ignored_reason: error.map(ToString::to_string),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::IgnoreCode;

    const A: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
    const B: &str = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty";

    fn digest(n: u8) -> String {
        format!("sha256:{}", hex::encode([n; 32]))
    }

    /// The codes of all rows, `ok` for an accepted one.
    fn check(entries: &[Value], expected: &[&str]) {
        let admission = admit("r", entries);
        let found: Vec<&str> = admission
            .commitments
            .iter()
            .map(|row| row.ignored_code.map_or("ok", IgnoreCode::as_str))
            .collect();
        assert_eq!(found, expected, "{:#?}", admission.commitments);
        assert_eq!(admission.submissions.len(), found.iter().filter(|code| **code == "ok").count());
    }

    #[test]
    fn entries_are_judged_one_by_one() {
        check(
            &[
                json!({"hotkey": A, "block": 1, "image": "m/a:v1", "digest": digest(1)}),
                json!({"hotkey": B, "block": 2, "payload": format!(r#"{{"image":"m/b","digest":"{}"}}"#, digest(2))}),
                json!("junk"),
                json!({"hotkey": 5}),
                json!({"hotkey": A, "block": 1, "payload": "{not json"}),
                json!({"hotkey": A, "block": 1, "payload": " ".repeat(5000)}),
                json!({"hotkey": A, "block": 1, "image": "m/a", "digest": "sha256:XYZ"}),
                json!({"hotkey": "x", "block": 1, "image": "m/a", "digest": digest(3)}),
                json!({"hotkey": A, "block": -1, "image": "m/a", "digest": digest(3)}),
                json!({"hotkey": A, "block": 1, "image": "../../etc", "digest": digest(3)}),
            ],
            &[
                "ok",
                "ok",
                "bad-payload",
                "bad-payload",
                "bad-payload",
                "bad-payload",
                "bad-field",
                "bad-field",
                "bad-payload",
                "bad-field",
            ],
        );
    }

    #[test]
    fn the_latest_of_a_hotkey_and_the_first_of_a_digest_count() {
        check(
            &[
                json!({"hotkey": A, "block": 9, "image": "m/a", "digest": digest(1)}),
                json!({"hotkey": A, "block": 3, "image": "m/a", "digest": digest(2)}),
                json!({"hotkey": B, "block": 10, "image": "m/a:v2", "digest": digest(1)}),
            ],
            &["ok", "superseded", "duplicate-digest"],
        );
    }

    /// Else a name that nothing stands behind, committed first, would keep the image of somebody else out.
    #[test]
    fn the_same_digest_under_another_name_is_a_submission_of_its_own() {
        let entries = [
            json!({"hotkey": B, "block": 3, "image": "m/nothing", "digest": digest(1)}),
            json!({"hotkey": A, "block": 4, "image": "m/a", "digest": digest(1)}),
        ];
        check(&entries, &["ok", "ok"]);
    }

    #[test]
    fn a_digest_that_is_committed_again_keeps_its_first_block() {
        let entries = [
            json!({"hotkey": A, "block": 3, "image": "m/a", "digest": digest(1)}),
            json!({"hotkey": B, "block": 5, "image": "m/a", "digest": digest(1)}),
            json!({"hotkey": A, "block": 9, "image": "m/a", "digest": digest(1)}),
        ];
        check(&entries, &["superseded", "duplicate-digest", "ok"]);
        assert_eq!(admit("r", &entries).submissions[0].block, 3);
        // Of another digest it was the first as well.
        let entries = [
            json!({"hotkey": A, "block": 3, "image": "m/a", "digest": digest(1)}),
            json!({"hotkey": A, "block": 4, "image": "m/a", "digest": digest(2)}),
            json!({"hotkey": A, "block": 9, "image": "m/a", "digest": digest(2)}),
        ];
        check(&entries, &["superseded", "superseded", "ok"]);
        assert_eq!(admit("r", &entries).submissions[0].block, 4);
    }
}
