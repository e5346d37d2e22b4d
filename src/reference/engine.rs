//! Generation: one request after the other, on one thread, from prompt tokens to steps of answer tokens.
//!
//! The honest options (how the prompt is read, whether keys and values are kept, speculation by prompt lookup) change
//! the speed and not the tokens, up to the last bits of sums in another order. Batching is deliberately absent:
//! requests wait in line. HTTP and JSON are `server`'s and `stream`'s.

use std::collections::HashMap;

use candle_core::{Result, Tensor};
use clap::ValueEnum;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use tokio::sync::mpsc::UnboundedSender;

use super::cheats::{Cheat, Cheats};
use super::lookup;
use super::model::{Cache, Model, Rows};
use super::sampler::{Position, position, sample};
use super::text::{Assembler, Vocabulary};

/// How the prompt goes through the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Prefill {
    /// One token after the other
    Token,
    /// All tokens in one pass
    Block,
}

/// What is kept between the tokens of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Decode {
    /// Nothing: each token runs the whole sequence again
    Recompute,
    /// Keys and values
    KvCache,
}

/// How the engine works; every combination of honest values answers with the same tokens.
#[derive(Clone, Debug)]
pub struct Conduct {
    /// How the prompt goes through the network.
    pub prefill: Prefill,
    /// What is kept between the tokens of an answer.
    pub decode: Decode,
    /// Most tokens to guess ahead by prompt lookup; 0 is none.
    pub speculate: usize,
    /// Most tokens of earlier answers to guess from; 0 is none.
    pub history: usize,
    /// The ways to misbehave.
    pub cheats: Cheats,
}

/// One request to the engine.
#[derive(Debug)]
pub struct Request {
    /// The prompt: at least one token, and room for `max_tokens` after it.
    pub tokens: Vec<u32>,
    /// Most tokens to answer with.
    pub max_tokens: usize,
    /// Temperature of the sampler; 0 is greedy.
    pub temperature: f64,
    /// Seed of the generator that samples.
    pub seed: u64,
    /// Whether to go on after the end token.
    pub ignore_eos: bool,
    /// Texts that end the answer when they appear in it.
    pub stops: Vec<String>,
    /// How many top logprobs each answer token carries.
    pub top: usize,
    /// How many top logprobs each prompt token carries, where prompt logprobs are wanted.
    pub prompt_top: Option<usize>,
    /// Where events go; the request is dropped when nobody listens.
    pub events: UnboundedSender<EngineEvent>,
}

/// What the engine reports of a request.
#[derive(Clone, Debug)]
pub enum EngineEvent {
    /// The prompt's logprobs, from its second token on.
    Prompt(Vec<Position>),
    /// What one pass of the network added.
    Step(EngineStep),
    /// The network failed; nothing follows.
    Failed(String),
}

/// What one pass of the network adds to the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineStep {
    /// The new tokens, in order.
    pub tokens: Vec<Position>,
    /// The text that is certain now and was not before.
    pub text: String,
    /// Why the answer ended; none before the last step.
    pub finish: Option<Finish>,
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model chose the end token.
    End,
    /// The answer contained this stop string.
    Stop(String),
    /// The answer reached its most tokens.
    Length,
}

/// Number of tokens after which `Cheat::CutShort` ends an answer.
const CUT_SHORT: usize = 40;
/// Number of tokens that `Cheat::PadAfterEnd` adds.
const PADDING: usize = 24;
/// Most answers that `Cheat::CachedAnswers` remembers.
const REMEMBERED: usize = 4_096;

/// The models, the conduct, and the memory between requests.
#[derive(Debug)]
pub struct Engine {
    model: Model,
    draft: Option<Model>,
    cache: Cache,
    vocabulary: std::sync::Arc<Vocabulary>,
    conduct: Conduct,
    history: Vec<u32>,
    remembered: HashMap<(Vec<u32>, usize), Vec<EngineEvent>>,
}

/// The answer that is being generated.
struct Answer<'r> {
    request: &'r Request,
    temperature: f64,
    rng: ChaCha12Rng,
    assembler: Assembler,
    sequence: Vec<u32>,
    count: usize,
    padding: Option<usize>,
    /// Text that went out before its token.
    early: String,
    sent: Vec<EngineEvent>,
}

impl Engine {
    /// Takes the loaded models, the draft model where a cheat needs it.
    ///
    /// # Errors
    /// Fails when the cache's memory cannot be had.
    pub fn new(
        model: Model,
        draft: Option<Model>,
        vocabulary: std::sync::Arc<Vocabulary>,
        conduct: Conduct,
    ) -> Result<Self> {
        let cache = model.cache()?;
        Ok(Self { model, draft, cache, vocabulary, conduct, history: Vec::new(), remembered: HashMap::new() })
    }

    /// Answers one request; returns when its last event is sent or nobody listens any more.
    pub fn serve(&mut self, request: &Request) {
        let key = (request.tokens.clone(), request.max_tokens);
        let is_caching = self.conduct.cheats.has(Cheat::CachedAnswers) && request.prompt_top.is_none();
        if let Some(events) = self.remembered.get(&key).filter(|_| is_caching) {
            for event in events {
                let _ = request.events.send(event.clone());
            }
            return;
        }
        match self.answer(request) {
            Ok(sent) if is_caching && self.remembered.len() < REMEMBERED => {
                self.remembered.insert(key, sent);
            }
            Ok(_) => {}
            Err(error) => {
                let _ = request.events.send(EngineEvent::Failed(error.to_string()));
            }
        }
    }

    fn answer(&mut self, request: &Request) -> Result<Vec<EngineEvent>> {
        let is_hot = self.conduct.cheats.has(Cheat::Temperature) && request.temperature <= 0.0;
        let mut answer = Answer {
            request,
            temperature: if is_hot { 0.8 } else { request.temperature },
            rng: ChaCha12Rng::seed_from_u64(request.seed),
            assembler: Assembler::new(request.stops.clone()),
            sequence: request.tokens.clone(),
            count: 0,
            padding: None,
            early: String::new(),
            sent: Vec::new(),
        };
        self.cache.truncate(0);
        let mut is_over = false;
        if let Some(draft) = self.draft.as_ref().filter(|_| self.conduct.cheats.has(Cheat::DraftFirstToken)) {
            let logits = draft.forward(&request.tokens, &mut draft.cache()?, Rows::Last)?;
            let first = self.choose(&mut answer, &row(&logits, 0)?);
            is_over = self.emit(&mut answer, vec![first]);
        }
        if let Some(draft) = self.draft.as_ref().filter(|_| self.conduct.cheats.has(Cheat::FirstCharacter)) {
            let logits = draft.forward(&request.tokens, &mut draft.cache()?, Rows::Last)?;
            let guess = sample(&row(&logits, 0)?, 0.0, &mut answer.rng);
            answer.early = self.vocabulary.decode(&[guess]).chars().take(1).collect();
            let text = answer.early.clone();
            answer.send(EngineEvent::Step(EngineStep { tokens: Vec::new(), text, finish: None }));
        }
        let last = self.read_prompt(&mut answer)?;
        if request.max_tokens == 0 {
            let step = EngineStep { tokens: Vec::new(), text: String::new(), finish: Some(Finish::Length) };
            answer.send(EngineEvent::Step(step));
            return Ok(answer.sent);
        }
        if answer.count == 0 {
            let first = self.choose(&mut answer, &last);
            is_over = self.emit(&mut answer, vec![first]);
        }
        while !is_over && !request.events.is_closed() {
            let group = self.pass(&mut answer)?;
            is_over = self.emit(&mut answer, group);
        }
        self.history.extend_from_slice(&answer.sequence[request.tokens.len()..]);
        self.history.drain(..self.history.len().saturating_sub(self.conduct.history));
        Ok(if is_over { answer.sent } else { Vec::new() })
    }

    /// Runs the prompt, reports its logprobs where wanted, and returns the logits after its last token.
    fn read_prompt(&mut self, answer: &mut Answer<'_>) -> Result<Vec<f32>> {
        let tokens = &answer.request.tokens;
        let mut last = Vec::new();
        let mut positions = Vec::new();
        let mut note = |at: usize, logits: &[f32]| {
            if let (Some(top), Some(id)) = (answer.request.prompt_top, tokens.get(at + 1)) {
                positions.push(position(logits, *id, top));
            }
        };
        let rows = if answer.request.prompt_top.is_some() { Rows::All } else { Rows::Last };
        match self.conduct.prefill {
            Prefill::Block => {
                let logits = self.model.forward(tokens, &mut self.cache, rows)?;
                let count = logits.dim(0)?;
                for index in 0..count {
                    last = row(&logits, index)?;
                    note(tokens.len() - count + index, &last);
                }
            }
            Prefill::Token => {
                for (index, token) in tokens.iter().enumerate() {
                    if answer.request.events.is_closed() {
                        break;
                    }
                    let logits = self.model.forward(&[*token], &mut self.cache, Rows::Last)?;
                    if rows == Rows::All || index + 1 == tokens.len() {
                        last = row(&logits, 0)?;
                        note(index, &last);
                    }
                }
            }
        }
        if answer.request.prompt_top.is_some() {
            answer.send(EngineEvent::Prompt(positions));
        }
        Ok(last)
    }

    /// Runs one pass of the network after the first token: gives the tokens that it settles, one or more.
    fn pass(&mut self, answer: &mut Answer<'_>) -> Result<Vec<Position>> {
        let known = answer.sequence.len();
        if self.conduct.decode == Decode::Recompute {
            self.cache.truncate(0);
        }
        let room = self.model.config().max_position_embeddings.saturating_sub(known);
        let left = answer.request.max_tokens.saturating_sub(answer.count + 1);
        let guess = if answer.temperature > 0.0 {
            &[]
        } else {
            lookup::guess(&answer.sequence, &self.history, self.conduct.speculate.min(room).min(left))
        };
        let guess = guess.to_vec();
        let mut input = answer.sequence[self.cache.len()..].to_vec();
        input.extend_from_slice(&guess);
        let rows = if guess.is_empty() { Rows::Last } else { Rows::All };
        let logits = self.model.forward(&input, &mut self.cache, rows)?;
        let first = logits.dim(0)? - guess.len() - 1;
        let mut group = Vec::new();
        for index in 0..=guess.len() {
            let chosen = self.choose(answer, &row(&logits, first + index)?);
            let is_guessed = guess.get(index) == Some(&chosen.id);
            group.push(chosen);
            if !is_guessed {
                break;
            }
        }
        self.cache.truncate(known + group.len() - 1);
        Ok(group)
    }

    fn choose(&self, answer: &mut Answer<'_>, logits: &[f32]) -> Position {
        let id = sample(logits, answer.temperature, &mut answer.rng);
        let end = self.model.config().eos_token_id;
        if id == end && self.conduct.cheats.has(Cheat::PadAfterEnd) {
            answer.padding.get_or_insert(PADDING);
            let mut others = logits.to_vec();
            others[end as usize] = f32::NEG_INFINITY;
            let id = sample(&others, answer.temperature, &mut answer.rng);
            return position(logits, id, answer.request.top);
        }
        position(logits, id, answer.request.top)
    }

    /// Adds tokens to the answer, sends them as one step and says whether the answer is over.
    fn emit(&self, answer: &mut Answer<'_>, group: Vec<Position>) -> bool {
        let mut step = EngineStep { tokens: Vec::new(), text: String::new(), finish: None };
        for chosen in group {
            let id = chosen.id;
            answer.count += 1;
            answer.sequence.push(id);
            step.tokens.push(chosen);
            let stop = answer.assembler.push(&self.vocabulary, id);
            step.finish = self.finish(answer, id, stop);
            if step.finish.is_some() {
                break;
            }
        }
        step.text = if step.finish.is_some() {
            answer.assembler.finish(&self.vocabulary)
        } else {
            answer.assembler.take()
        };
        if !step.text.is_empty() {
            let early = std::mem::take(&mut answer.early);
            if let Some(rest) = step.text.strip_prefix(&early) {
                step.text = String::from(rest);
            }
        }
        let is_over = step.finish.is_some();
        answer.send(EngineEvent::Step(step));
        is_over
    }

    fn finish(&self, answer: &mut Answer<'_>, id: u32, stop: Option<String>) -> Option<Finish> {
        if let Some(left) = &mut answer.padding {
            *left = left.saturating_sub(1);
        }
        let is_end = id == self.model.config().eos_token_id && !answer.request.ignore_eos;
        let is_cut = self.conduct.cheats.has(Cheat::CutShort) && answer.count >= CUT_SHORT;
        if is_end || is_cut || answer.padding == Some(0) {
            Some(Finish::End)
        } else if let Some(stop) = stop {
            Some(Finish::Stop(stop))
        } else {
            (answer.count >= answer.request.max_tokens).then_some(Finish::Length)
        }
    }
}

impl Answer<'_> {
    fn send(&mut self, event: EngineEvent) {
        self.sent.push(event.clone());
        let _ = self.request.events.send(event);
    }
}

fn row(logits: &Tensor, index: usize) -> Result<Vec<f32>> {
    logits.get(index)?.to_vec1()
}
