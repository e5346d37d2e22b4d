//! The seam to where jobs run: an order goes in, news come out, and at the end a report.
//!
//! All of it is plain data, so that a job may run in the process of the round, in one beside it, or on another
//! machine, and the round does not see a difference. Deliberately absent: which machine, which queue, which engine.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use super::Progress;
use crate::artifact::{FormatVersion, JournalEvent, LegAttempt};
use crate::model::{RoundId, Seed};
use crate::pipeline::contexts::KnownContexts;
use crate::pipeline::definition::{Job, Pipeline};
use crate::pipeline::expr::Status;
use crate::pipeline::source::Source;
use crate::schedule::AttemptEnd;

/// Runs attempts of jobs, one at each call, any number at a time.
pub trait JobRunner: Send + Sync {
    /// Runs one attempt to its end and says how it ended; whatever goes wrong is such an end too.
    ///
    /// All `news` of the attempt are sent before the future is ready.
    ///
    /// # Cancel safety
    /// Stops by `stop`. When the future is dropped, all that it started is killed.
    fn run(
        &self,
        order: JobOrder,
        news: UnboundedSender<JobNews>,
        stop: JobStop,
    ) -> BoxFuture<'static, AttemptEnd>;
}

/// One attempt of one leg of a job, with everything that is needed to run it.
///
/// As JSON it is what `cacheon job` reads: the pipeline and the runner are their texts there. Numbers that JSON
/// does not have (NaN, the infinities) become null, as they do in the outputs of a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobOrder {
    /// [`JobOrder::SCHEMA`] of the program that wrote it.
    pub schema: FormatVersion,
    /// The directory of all rounds, absolute, as the place that runs the job sees it.
    pub data_dir: PathBuf,
    /// The round.
    pub round_id: RoundId,
    /// Root of all randomness of the round: a secret until the round is over.
    #[serde(rename = "seed_hex", with = "seed_hex")]
    pub seed: Seed,
    /// The whole pipeline; the job is one of its jobs.
    #[serde(with = "pipeline_text")]
    pub pipeline: Arc<Pipeline>,
    /// The text of the runner's file; none for a job of the controller, which boots no servers.
    pub runner: Option<Source>,
    /// Which attempt of which leg of which job.
    #[serde(flatten)]
    pub at: LegAttempt,
    /// The contexts known before the job's own steps: inputs, run, env, needs, matrix, strategy.
    pub contexts: KnownContexts,
    /// Whether what the job needs went well.
    pub status: Status,
    /// Wall time at which the attempt began, microseconds since 1970 UTC.
    pub started_at_us: i64,
}

impl JobOrder {
    /// The version of the orders that this program writes; it reads them and older ones.
    pub const SCHEMA: FormatVersion = FormatVersion::new(1, 0);
    /// The most bytes an order may have as JSON, and each line of what a job says.
    pub const MAX_BYTES: usize = 64 * 1024 * 1024;

    /// The job, if the pipeline has it.
    pub fn job(&self) -> Option<&Job> {
        self.pipeline.jobs.iter().find(|job| job.id == self.at.job)
    }

    /// Reads an order as `cacheon job` gets it.
    ///
    /// # Errors
    /// [`InvalidOrder`] where it is too long, not JSON, of a newer version, or its pipeline has mistakes or has no
    /// such job.
    pub fn from_json(bytes: &[u8]) -> Result<Self, InvalidOrder> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(InvalidOrder::TooLong);
        }
        let Version { schema } = serde_json::from_slice(bytes)?;
        if schema > Self::SCHEMA {
            return Err(InvalidOrder::Newer { schema });
        }
        let order: Self = serde_json::from_slice(bytes)?;
        match order.job() {
            Some(_) => Ok(order),
            None => Err(InvalidOrder::UnknownJob { job: order.at.job }),
        }
    }
}

/// What an order of any version says.
#[derive(Deserialize)]
struct Version {
    schema: FormatVersion,
}

/// Why an order cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum InvalidOrder {
    /// Longer than any order.
    #[error("the order is longer than {} bytes", JobOrder::MAX_BYTES)]
    TooLong,
    /// Not JSON, or not an order.
    #[error("the order is not valid: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Written by a newer program.
    #[error(
        "the order has version {schema}, this program reads up to {}: both sides need the same program",
        JobOrder::SCHEMA
    )]
    Newer {
        /// The version it has.
        schema: FormatVersion,
    },
    /// The pipeline has no such job.
    #[error("the order's pipeline has no job `{job}`")]
    UnknownJob {
        /// The job that was ordered.
        job: String,
    },
}

/// What is heard of an attempt while it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobNews {
    /// Something to be journalled: a step began, a step ended, tables are out.
    Journal(JournalEvent),
    /// A step came further.
    Progress(Progress),
}

impl JobNews {
    /// Whether it is something that an attempt can say of itself, and says it of this attempt.
    pub fn is_of(&self, attempt: &LegAttempt) -> bool {
        match self {
            Self::Journal(
                JournalEvent::StepStarted { at, .. }
                | JournalEvent::StepEnded { at, .. }
                | JournalEvent::ServerLaunchedAnew { at, .. },
            ) => at == attempt,
            Self::Journal(JournalEvent::Published { .. }) => true,
            Self::Journal(_) => false,
            Self::Progress(progress) => progress.job == attempt.job && progress.leg == attempt.leg,
        }
    }
}

/// One line of what `cacheon job` writes to its standard output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobMessage {
    /// The attempt goes on.
    News(JobNews),
    /// The report, the last line: the attempt has ended and nothing of it runs any more.
    Ended(AttemptEnd),
}

/// One line of what `cacheon job -` reads after its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobCommand {
    /// End in good order: servers are asked to end, steps that insist still run.
    Cancel,
    /// End now.
    Kill,
}

/// How somebody stops an attempt.
#[derive(Debug, Clone, Default)]
pub struct JobStop {
    /// Asks it to end in good order.
    pub cancel: CancellationToken,
    /// Ends it now.
    pub kill: CancellationToken,
}

impl JobStop {
    /// Ends the attempt now.
    pub fn now(&self) {
        self.cancel.cancel();
        self.kill.cancel();
    }
}

/// A seed as 64 hexadecimal digits.
mod seed_hex {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::model::Seed;

    pub(super) fn serialize<S: Serializer>(seed: &Seed, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&seed.to_hex())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Seed, D::Error> {
        let text = String::deserialize(deserializer)?;
        Seed::from_hex(&text).ok_or_else(|| D::Error::custom("a seed is 64 hexadecimal digits"))
    }
}

/// A pipeline as the text it was read from.
mod pipeline_text {
    use std::sync::Arc;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};

    use crate::pipeline::definition::Pipeline;
    use crate::pipeline::source::Source;

    pub(super) fn serialize<S: Serializer>(
        pipeline: &Arc<Pipeline>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        pipeline.source.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Pipeline>, D::Error> {
        let source = Source::deserialize(deserializer)?;
        match Pipeline::parse(&source) {
            Ok(parsed) => Ok(Arc::new(parsed.value)),
            Err(found) => Err(D::Error::custom(format!("its pipeline has mistakes\n{found}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pipeline::contexts::ContextName;
    use crate::pipeline::expr::Object;

    fn order() -> JobOrder {
        let text = "name: t\njobs: { a: { steps: [{ run: 'true' }] } }\n";
        let matrix =
            Object::new().with("Zeta", 1.0).with("alpha", "x").with("list", json!([1.5, null, true]));
        JobOrder {
            schema: JobOrder::SCHEMA,
            data_dir: "/data".into(),
            round_id: "r".parse().unwrap(),
            seed: Seed::from_text("1"),
            pipeline: Arc::new(Pipeline::parse(&Source::new("t.yml", text)).unwrap().value),
            runner: Some(Source::new("r.yml", "name: r\nengine: process\n")),
            at: LegAttempt { job: "a".to_owned(), leg: "k".to_owned(), attempt: 2 },
            contexts: KnownContexts::default().with(ContextName::Matrix, matrix),
            status: Status::Cancelled,
            started_at_us: 7,
        }
    }

    #[test]
    fn an_order_comes_back_as_it_was_written() {
        let order = order();
        let text = serde_json::to_vec(&order).unwrap();
        let back = JobOrder::from_json(&text).unwrap();
        assert_eq!(back.contexts, order.contexts);
        assert_eq!((back.at, back.status, back.runner), (order.at, order.status, order.runner));
        assert_eq!(back.pipeline.source, order.pipeline.source);
        assert_eq!(back.seed, order.seed);
    }

    #[test]
    fn what_is_no_order_is_refused() {
        let check = |change: fn(&mut serde_json::Value), expected: &str| {
            let mut value = serde_json::to_value(order()).unwrap();
            change(&mut value);
            let error = JobOrder::from_json(&serde_json::to_vec(&value).unwrap()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(|order| order["schema"] = json!("2.0"), "has version 2.0, this program reads up to 1.0");
        check(|order| order["job"] = json!("b"), "no job `b`");
        check(|order| order["seed_hex"] = json!("12"), "64 hexadecimal digits");
        check(|order| order["pipeline"]["text"] = json!("name: t\njobz: 1\n"), "unknown key");
        check(|order| *order = json!([]), "not valid");
        assert!(matches!(JobOrder::from_json(b"{"), Err(InvalidOrder::Malformed(_))));
        assert!(matches!(
            JobOrder::from_json(&vec![b' '; JobOrder::MAX_BYTES + 1]),
            Err(InvalidOrder::TooLong)
        ));
    }

    #[test]
    fn an_attempt_speaks_for_itself_only() {
        let own = LegAttempt { job: "a".to_owned(), leg: "k".to_owned(), attempt: 2 };
        let progress = |job: &str| {
            let doing = "benchmark".to_owned();
            JobNews::Progress(Progress { job: job.to_owned(), leg: "k".to_owned(), doing, done: 1, total: 2 })
        };
        assert!(progress("a").is_of(&own));
        assert!(!progress("b").is_of(&own));
        assert!(!JobNews::Journal(JournalEvent::Interrupted { signal: "SIGINT".to_owned() }).is_of(&own));
    }
}
