//! `pull`: makes the image present on the machine and checks its digest.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{JobContext, StageError};
use crate::model::{Arm, Digest, ImageReference};

/// Parameters of the stage.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Image without tag.
    pub image: ImageReference,
    /// Digest it must have.
    pub digest: Digest,
    /// Whose image it is: a failure of the baseline's is never a submission's fault.
    #[serde(default = "super::candidate")]
    pub arm: Arm,
}

pub(super) async fn run(
    parameters: Parameters,
    context: &mut JobContext<'_>,
) -> Result<Map<String, Value>, StageError> {
    context.engine()?.pull(&parameters.image, &parameters.digest).await?;
    let mut outputs = Map::new();
    outputs.insert("reference".to_owned(), format!("{}@{}", parameters.image, parameters.digest).into());
    outputs.insert("digest".to_owned(), parameters.digest.to_string().into());
    Ok(outputs)
}
