//! The ways in which the server can be told to misbehave: one flag, one behaviour.
//!
//! Each is an opponent of one defence of the arena. This module only names them; the behaviour stands where honest
//! code would stand: `engine` for weights and tokens, `stream` for events, `server` for the process.

use std::collections::BTreeSet;

use clap::ValueEnum;

/// One way to misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Cheat {
    /// Matrices quantised to 8 bits, 32 weights to a scale
    Int8Weights,
    /// Matrices quantised to 4 bits, 32 weights to a scale
    Int4Weights,
    /// The small draft model answers in the model's name
    OtherWeights,
    /// Samples at temperature 0.8 where 0 was asked for
    Temperature,
    /// The first token comes from the small draft model, before the model has read the prompt
    DraftFirstToken,
    /// The first character of the small draft model's first token goes out before the model has read the prompt, without
    /// log probabilities; the answer follows when it is there
    FirstCharacter,
    /// Ends each answer at token 40 (about 60% of the usual length) with `finish_reason` `stop`
    CutShort,
    /// Goes on for 24 tokens after the model has ended its answer
    PadAfterEnd,
    /// Reports twice the tokens in `usage`
    InflateUsage,
    /// Sends the chunk with the role at once, before any work, instead of with the first token
    RoleChunkFirst,
    /// Sends the first byte of the first event at once, the rest when it is there
    EarlyByte,
    /// Writes the whole stream in one piece when the answer is complete
    BufferAndFlush,
    /// Sends each character as an event of its own
    SplitCharacters,
    /// Sends 64 empty logprob entries in an event at once, and the text later without logprobs
    EmptyLogprobsFirst,
    /// Sends all log probabilities in an answer's last event, and the text before it without any
    LateLogprobs,
    /// Sends 8,000 characters of text more before an answer's last event, without log probabilities
    LongText,
    /// Sends 150 words of text more before an answer's last event, without log probabilities
    HiddenText,
    /// Answers a prompt that it has seen before from a table
    CachedAnswers,
    /// Fails before listening, with a Python traceback and exit code 1
    ExitAtBoot,
    /// Answers 503 on /health for ever
    NeverHealthy,
    /// Takes every request for an answer and never sends a byte (see --trigger-stream)
    NeverAnswers,
    /// Exits with code 139 in the middle of a stream (see --trigger-stream)
    CrashMidStream,
    /// Takes 4 GiB of memory in the middle of a stream (see --trigger-stream)
    HoardMidStream,
    /// Sends nothing more from the middle of a stream on, and keeps the connection (see --trigger-stream)
    StallMidStream,
    /// Exits with code 139 when it is asked for a prompt's log probabilities (see --trigger-stream)
    CrashMidScoring,
    /// Exits with code 139 where it would refuse a prompt for being longer than --max-model-len
    CrashBeyondLength,
}

/// The chosen ways to misbehave; a server with none is honest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cheats(BTreeSet<Cheat>);

impl Cheats {
    /// Whether this behaviour was chosen.
    pub fn has(&self, cheat: Cheat) -> bool {
        self.0.contains(&cheat)
    }

    /// The chosen behaviours, in the order of the list.
    pub fn iter(&self) -> impl Iterator<Item = Cheat> {
        self.0.iter().copied()
    }

    /// Whether one of them needs the small draft model.
    pub fn needs_draft(&self) -> bool {
        [Cheat::OtherWeights, Cheat::DraftFirstToken, Cheat::FirstCharacter]
            .into_iter()
            .any(|cheat| self.has(cheat))
    }
}

impl FromIterator<Cheat> for Cheats {
    fn from_iter<I: IntoIterator<Item = Cheat>>(cheats: I) -> Self {
        Self(cheats.into_iter().collect())
    }
}
