//! `pull`: makes the image present on the machine and checks its digest.

use super::{JobContext, StageError};
use crate::pipeline::stage::pull::{Output, Parameters};

pub(super) async fn run(parameters: Parameters, context: &mut JobContext<'_>) -> Result<Output, StageError> {
    let progress = |come: u64, total: u64| {
        let mib = |bytes: u64| usize::try_from(bytes.div_ceil(1 << 20)).unwrap_or(usize::MAX);
        context.tell("pull (MiB)", mib(come), mib(total));
    };
    let content = context.engine()?.pull(&parameters.image, &parameters.digest, &progress).await?;
    context.notes.content = Some(content.clone());
    let reference = format!("{}@{}", parameters.image, parameters.digest);
    Ok(Output { digest: parameters.digest, reference, content })
}
