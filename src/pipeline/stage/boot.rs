//! `boot`: a server that is ready.

use std::path::PathBuf;
use std::time::Duration;

use super::TimeSpan;
use super::declare::{outputs, parameters};
use crate::model::{Digest, ImageReference, Role};

parameters! {
    /// Which image is booted, and how long that may take.
    {
        /// the image's name, without tag
        "image" image: ImageReference,
        /// the image's digest
        "digest" digest: Digest,
        /// whose server it is: `candidate`, `baseline` or `scorer`;
        /// only a candidate's failure can be a submission's fault
        "role" role: Role = Role::Candidate,
        /// the name under which the model is served
        "model-name" model_name: String = "reference".to_owned(),
        /// arguments of the server, in the place of those that its image has by default (`CMD`):
        /// for a baseline or a scorer that knows nothing of `CACHEON_MODEL_NAME`
        "args" args: Vec<String> = Vec::new(),
        /// the model's directory, its tokenizer included; the runner's by default
        "model-dir" model_dir: Option<PathBuf>,
        /// how long the server may take to become healthy and give its first answer
        "deadline" deadline: TimeSpan = TimeSpan(Duration::from_mins(2)),
        /// the path that answers 200 when healthy; what the image says by default
        "health-path" health_path: Option<String>,
        /// the time between two health checks
        "poll" poll: TimeSpan = TimeSpan(Duration::from_millis(100)),
        /// how much of the server's log is kept, in bytes
        "max-log-bytes" max_log_bytes: u64 = 1024 * 1024,
    }
}

outputs! {
    /// The server that is ready.
    {
        /// the server's base URL
        "endpoint" endpoint: String,
        /// the identity of this launch
        "boot-id" boot_id: String,
        /// the time from start to the first answer, in milliseconds
        "ready-ms" ready_ms: u64,
    }
}
