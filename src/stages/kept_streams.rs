//! What the benchmark keeps while it measures: the tables of its attempt, those of the streams and those that are derived from
//! them.
//!
//! Captures are held as they come and written once they are many: an ordinary read is written after its clock has
//! stopped, and a server that sends all that its answers may have costs disk and no memory. No row stays in memory longer than
//! its row group takes to fill; what the read itself needs of its requests is [`Answered`].

use super::{JobContext, StageError, data_dir};
use crate::adapters::store::PartialFile;
use crate::artifact::{Table as _, TableContext, TableWriter};
use crate::measure::{
    AnswerBounds, Capture, PinnedTokenizer, Prompt, StreamContext, keep, measured, new_prompt_tokens, pieces,
};
use crate::model::{ExchangeRow, RequestRow, RequestStatus, StreamRow, TokenRow};

/// Number of bytes that captures may hold before they are written.
const HELD_BYTES: usize = 8 << 20;

/// The read that the captures belong to.
#[derive(Clone, Copy)]
pub(super) struct Measured<'a> {
    /// Key of the read.
    pub(super) read_key: &'a str,
    /// The prompts that were asked.
    pub(super) prompts: &'a [Prompt],
    /// The tokenizer that every token of the round is counted by.
    pub(super) tokenizer: &'a PinnedTokenizer,
    /// The most that one answer may be.
    pub(super) bounds: AnswerBounds,
}

/// What a read needs of its requests, beside their rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Answered {
    /// Number of requests.
    pub(super) requests: u32,
    /// Number of those that failed.
    pub(super) failed: u32,
    /// What became of the first one that failed.
    pub(super) first_failed: Option<String>,
    /// The times to first token, nanoseconds, of the requests that have one, in their order.
    pub(super) ttft_ns: Vec<f64>,
}

impl Answered {
    /// Takes the next request.
    pub(super) fn take(&mut self, row: &RequestRow) {
        self.requests += 1;
        self.ttft_ns.extend(row.ttft_ns.map(|nanos| nanos as f64));
        if row.status != RequestStatus::Ok {
            self.failed += 1;
            self.first_failed.get_or_insert_with(|| {
                let flags = row.flags.iter().map(|flag| flag.as_str()).collect::<Vec<_>>().join(", ");
                format!("prompt {} ended {} {flags}", row.prompt_index, row.status)
            });
        }
    }
}

/// The streams of one read on their way to disk, and the rows derived from them.
pub(super) struct KeptStreams<'a> {
    measured: Measured<'a>,
    round_id: &'a str,
    /// The new tokens of each prompt.
    new_tokens: Vec<Option<u32>>,
    streams: TableWriter<StreamRow, PartialFile>,
    exchanges: TableWriter<ExchangeRow, PartialFile>,
    held: Vec<Capture>,
    held_bytes: usize,
    /// Whether one byte came from the server.
    was_heard: bool,
    answered: Answered,
    requests: TableWriter<RequestRow, PartialFile>,
    answers: TableWriter<TokenRow, PartialFile>,
}

impl<'a> KeptStreams<'a> {
    pub(super) fn begin(measured: Measured<'a>, context: &'a JobContext<'_>) -> Result<Self, StageError> {
        let begin = |name: &str| {
            context.round.directory.begin_whole(&format!("{}/{name}.parquet", data_dir(context)))
        };
        let table = TableContext { round_id: &context.round.round_id };
        Ok(Self {
            measured,
            new_tokens: new_prompt_tokens(measured.tokenizer, measured.prompts),
            round_id: context.round.round_id.as_str(),
            streams: TableWriter::new(begin(StreamRow::NAME)?, &table)?,
            exchanges: TableWriter::new(begin(ExchangeRow::NAME)?, &table)?,
            held: Vec::new(),
            held_bytes: 0,
            was_heard: false,
            answered: Answered::default(),
            requests: TableWriter::new(begin(RequestRow::NAME)?, &table)?,
            answers: TableWriter::new(begin("answers")?, &table)?,
        })
    }

    /// Takes the next capture, in the order of prompts.
    pub(super) fn take(&mut self, capture: Capture) -> Result<(), StageError> {
        self.was_heard |= capture.was_heard();
        self.held_bytes += capture.held_bytes();
        self.held.push(capture);
        if self.held_bytes > HELD_BYTES { self.write_held() } else { Ok(()) }
    }

    /// Whether one byte came from the server so far.
    pub(super) fn was_heard(&self) -> bool {
        self.was_heard
    }

    /// Finishes the files, those of the streams, the exchanges and the answers; gives what the requests come to and the file of
    /// their rows, which has no name before the read is a measurement.
    pub(super) fn finish(mut self) -> Result<(Answered, PartialFile), StageError> {
        self.write_held()?;
        self.streams.finish()?.finish()?;
        self.exchanges.finish()?.finish()?;
        self.answers.finish()?.finish()?;
        Ok((self.answered, self.requests.finish()?))
    }

    fn write_held(&mut self) -> Result<(), StageError> {
        self.held_bytes = 0;
        let Measured { read_key, prompts, tokenizer, bounds } = self.measured;
        for mut capture in std::mem::take(&mut self.held) {
            let prompt = prompts.get(capture.prompt_index as usize);
            let new_prompt_tokens = self.new_tokens.get(capture.prompt_index as usize).copied().flatten();
            let prompt_sha256 = prompt.map_or("", |prompt| &prompt.sha256);
            // The load knows the place in its list, the rows the number in the round.
            capture.prompt_index = prompt.map_or(capture.prompt_index, |prompt| prompt.index);
            let max_tokens = u32::try_from(bounds.tokens).unwrap_or(u32::MAX);
            let stream = StreamContext {
                round_id: self.round_id,
                read_key,
                prompt_sha256,
                new_prompt_tokens,
                max_tokens,
            };
            let (mut exchange, mut capture) = keep(&stream, capture);
            for piece in pieces(&exchange, &capture) {
                self.streams.write(piece)?;
            }
            let record = measured(tokenizer, &bounds, (&mut exchange, &mut capture));
            self.exchanges.write(exchange)?;
            self.answered.take(&record.request);
            self.requests.write(record.request)?;
            for token in record.tokens {
                self.answers.write(token)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::adapters::store::RoundDirectory;
    use crate::artifact::encode;
    use crate::measure::tokenizer::tests::tiny;
    use crate::measure::{End, Piece, derive_records};
    use crate::model::{RoundId, Seed};
    use crate::pipeline::stage::{Handle, benchmark};
    use crate::stages::{Notes, RoundContext, RunnerContext, handle, load};

    /// A stream that comes byte by byte, and every third time breaks off.
    fn capture(prompt_index: u32) -> Capture {
        let text = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello w\"},\"finish_reason\":\"stop\"}]}\n\n\
                    data: [DONE]\n\n";
        let is_cut = prompt_index % 3 == 2;
        Capture {
            prompt_index,
            end_ns: 5000,
            http_status: Some(200),
            content_type: Some("text/event-stream".to_owned()),
            pieces: (10..)
                .zip(text.bytes().take(if is_cut { 40 } else { usize::MAX }))
                .map(|(at_ns, byte)| Piece { at_ns, bytes: vec![byte] })
                .collect(),
            end: if is_cut { End::Reset } else { End::Eof },
            ..Capture::default()
        }
    }

    /// A new round in a data directory.
    pub(in crate::stages) fn round(data: &Path) -> RoundContext {
        let round_id: RoundId = "r".parse().expect("an id");
        let directory = RoundDirectory::create(data, &round_id).expect("creates");
        RoundContext { round_id, kept: directory.clone(), directory, seed: Seed::from_text("1") }
    }

    /// The first attempt of a leg that measures, on a runner that boots nothing.
    pub(in crate::stages) fn context<'a>(
        round: &'a RoundContext,
        runner: &'a RunnerContext,
    ) -> JobContext<'a> {
        JobContext {
            round,
            runner,
            job: "measure".to_owned(),
            leg: "0000-a".to_owned(),
            attempt: 1,
            upstream: std::collections::BTreeSet::new(),
            attempt_dir: round.directory.path().to_owned(),
            scratch_dir: round.directory.path().to_owned(),
            started_at_us: 0,
            server: None,
            notes: Notes::default(),
            ends: None,
            cancel: CancellationToken::new(),
            news: tokio::sync::mpsc::unbounded_channel().0,
        }
    }

    #[test]
    fn answers_that_are_headers_alone_are_held_no_longer() {
        let data = tempfile::tempdir().expect("a directory");
        let round = round(data.path());
        let runner = RunnerContext::controller();
        let context = context(&round, &runner);
        let tokenizer = tiny();
        let measured = Measured {
            read_key: "0000-a",
            prompts: &[],
            tokenizer: &tokenizer,
            bounds: AnswerBounds::of(4, 0),
        };
        let mut kept = KeptStreams::begin(measured, &context).expect("begins");
        for prompt_index in 0..300 {
            let content_type = Some("x".repeat(60 << 10));
            kept.take(Capture { prompt_index, content_type, ..Capture::default() }).expect("takes");
            assert!(kept.held.len() <= HELD_BYTES / (60 << 10));
        }
    }

    #[test]
    fn what_was_measured_is_derived_again_from_the_files() {
        let data = tempfile::tempdir().expect("a directory");
        let round = round(data.path());
        let runner = RunnerContext::controller();
        let context = context(&round, &runner);
        let tokenizer = tiny();
        let bounds = AnswerBounds::of(4, 0);
        let measured = Measured { read_key: "0000-a", prompts: &[], tokenizer: &tokenizer, bounds };
        let mut kept = KeptStreams::begin(measured, &context).expect("begins");
        for prompt_index in 0..7 {
            // As if the client had taken more than it holds, now and then.
            kept.held_bytes += if prompt_index == 3 { HELD_BYTES } else { 0 };
            kept.take(capture(prompt_index)).expect("takes");
        }
        let (answered, file) = kept.finish().expect("finishes");
        let path = |name: &str| format!("{}/{name}.parquet", data_dir(&context));
        assert!(!round.directory.path().join(path("requests")).exists(), "before the read is a measurement");
        file.finish().expect("has a name");
        let data: Handle<benchmark::Output> = handle(&context).expect("a handle");
        let requests = load::<RequestRow, _>(&context, &data, "requests.parquet").expect("reads");
        let tokens = load::<TokenRow, _>(&context, &data, "answers.parquet").expect("reads");
        assert_eq!((requests.len(), tokens.len()), (7, 5 * 4));
        assert_eq!((answered.requests, answered.failed, answered.ttft_ns.len()), (7, 2, 5));
        assert_eq!(
            answered.first_failed.as_deref(),
            Some("prompt 2 ended transport_error no_logprobs, partial_event_at_eof")
        );
        let exchanges = load::<ExchangeRow, _>(&context, &data, "exchanges.parquet").expect("reads");
        let pieces = load::<StreamRow, _>(&context, &data, "streams.parquet").expect("reads");
        assert!(pieces.iter().all(|piece| piece.bytes.len() == 1));
        let records = derive_records(&tokenizer, &exchanges, &pieces).expect("whole");
        // Whoever derives the rows again writes each table at once.
        let table = TableContext { round_id: &round.round_id };
        let bytes = |name: &str| round.directory.read(&path(name), 1 << 20).expect("reads");
        assert!(bytes("exchanges") == encode(&exchanges, &table).expect("encodes"));
        assert!(bytes("requests") == encode(&requests, &table).expect("encodes"));
        assert!(bytes("answers") == encode(&tokens, &table).expect("encodes"));
        let (again, tokens_again): (Vec<_>, Vec<_>) =
            records.into_iter().map(|record| (record.request, record.tokens)).unzip();
        assert_eq!((again, tokens_again.concat()), (requests, tokens));
    }
}
