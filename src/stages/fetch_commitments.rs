//! `fetch-commitments`: reads the commitments of a subnet and says what became of each.

use super::{JobContext, StageError, handle, write_table};
use crate::adapters::chain_file::ChainFile;
#[cfg(feature = "chain")]
use crate::adapters::subtensor::Subtensor;
use crate::model::{SubmissionRow, admit};
use crate::pipeline::stage::fetch_commitments::{CommitmentSource, Output, Parameters};
use crate::ports::ChainSource;

/// The source that the parameters name. What only the other kind needs may be given too, so that a pipeline can
/// take its source from an input.
fn chain_source(parameters: Parameters) -> Result<Box<dyn ChainSource>, StageError> {
    let Parameters { source, path, endpoint, netuid } = parameters;
    let wrong = |why: &str| Err(StageError::Parameter(format!("`with:` of `fetch-commitments`: {why}")));
    match (source, path, endpoint.zip(netuid)) {
        (CommitmentSource::File, Some(path), _) => Ok(Box::new(ChainFile::new(path))),
        (CommitmentSource::File, None, _) => wrong("`source: file` needs `path`"),
        #[cfg(feature = "chain")]
        (CommitmentSource::Chain, _, Some((endpoint, netuid))) => {
            Ok(Box::new(Subtensor::new(endpoint, netuid)))
        }
        #[cfg(feature = "chain")]
        (CommitmentSource::Chain, _, None) => wrong("`source: chain` needs `endpoint` and `netuid`"),
        #[cfg(not(feature = "chain"))]
        (CommitmentSource::Chain, ..) => wrong("this program was built without the feature `chain`"),
    }
}

/// Reads the commitments, judges each, and leaves its row.
pub(super) async fn run(parameters: Parameters, context: &mut JobContext<'_>) -> Result<Output, StageError> {
    let source = chain_source(parameters)?;
    let view = source.commitments().await?;
    let round_id = context.round.round_id.as_str();
    let admission = admit(round_id, &view.entries);
    for row in admission.commitments.iter().filter(|row| !row.is_accepted) {
        let reason = row.ignored_reason.as_deref().unwrap_or_default();
        tracing::info!(position = row.position, hotkey = row.hotkey, reason, "commitment ignored");
    }
    let submissions = admission.submissions.iter();
    let submissions: Vec<_> =
        submissions.map(|submission| SubmissionRow::new(round_id, submission)).collect();
    let ignored = admission.commitments.iter().filter(|row| !row.is_accepted).count();
    write_table(context, &admission.commitments)?;
    write_table(context, &submissions)?;
    Ok(Output {
        submissions: admission.submissions,
        ignored: ignored as u64,
        block: view.block,
        data: handle(context)?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pipeline::expr;
    use crate::pipeline::stage::{StageCall, StageName};

    #[test]
    fn each_source_takes_its_own_parameters() {
        let check = |with: Value, expected: Option<&str>| {
            let given = expr::Value::from(with.clone());
            let bound = StageName::FetchCommitments.spec().bind(given.as_object().unwrap()).unwrap();
            let StageCall::FetchCommitments(parameters) = bound else { panic!("another stage") };
            let found = chain_source(parameters).err().map(|error| error.to_string());
            assert_eq!(found.is_some(), expected.is_some(), "{with}: {found:?}");
            assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()), "{with}");
        };
        check(json!({"path": "commitments.yml"}), None);
        check(json!({"path": "commitments.yml", "netuid": 14}), None);
        check(json!({"netuid": 14}), Some("`source: file` needs `path`"));
        #[cfg(feature = "chain")]
        {
            check(json!({"source": "chain", "endpoint": "wss://node.example", "netuid": 14}), None);
            check(
                json!({"source": "chain", "endpoint": "wss://node.example", "path": "x"}),
                Some("and `netuid`"),
            );
        }
    }
}
