//! `pull`: makes the image present on the machine and checks its digest.

use super::{JobContext, StageError};
use crate::pipeline::stage::pull::{Output, Parameters};

pub(super) async fn run(parameters: Parameters, context: &mut JobContext<'_>) -> Result<Output, StageError> {
    let content = context.engine()?.pull(&parameters.image, &parameters.digest).await?;
    context.notes.content = Some(content.clone());
    let reference = format!("{}@{}", parameters.image, parameters.digest);
    Ok(Output { digest: parameters.digest, reference, content })
}
