//! Makes sealed rounds of any size for benchmarks of `cacheon query`: `tests/bench/query_speed.py` asks them.
//!
//! `cargo run --release --example make_rounds -- DIRECTORY ROUNDS ROWS`: a data directory with that many rounds and that
//! many rows of `tokens` in all of them together. The same arguments give the same bytes.

use std::path::Path;
use std::process::ExitCode;

use cacheon::adapters::store::{RoundDirectory, StoreError};
use cacheon::model::TokenRow;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// Number of tokens of one answer.
const ANSWER: u64 = 128;
/// Number of answers of one read.
const PROMPTS: u64 = 256;
/// Number of token ids in the vocabulary.
const VOCABULARY: u64 = 151_936;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let parsed = match arguments.as_slice() {
        [directory, rounds, rows] => rounds.parse().ok().zip(rows.parse().ok()).map(|pair| (directory, pair)),
        _ => None,
    };
    let Some((directory, (rounds, rows))) = parsed else {
        return fail("usage: make_rounds DIRECTORY ROUNDS ROWS");
    };
    match make(Path::new(directory), rounds, rows) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&cacheon::report::text::error_chain(&error)),
    }
}

#[expect(clippy::print_stderr, reason = "this is a program of its own")]
fn fail(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::FAILURE
}

/// Writes and seals the rounds; the rows are shared out among them, the first ones taking the rest.
fn make(data_dir: &Path, rounds: u64, rows: u64) -> Result<(), StoreError> {
    for number in 0..rounds {
        let round_id = format!("bench-{number:04}");
        let directory = RoundDirectory::create(data_dir, &round_id.parse().expect("a round id"))?;
        let count = rows / rounds + u64::from(number < rows % rounds);
        let mut generator = ChaCha8Rng::seed_from_u64(number);
        let rows: Vec<TokenRow> = (0..count).map(|row| token(&round_id, row, &mut generator)).collect();
        directory.write_table(&rows)?;
        directory.seal()?;
    }
    Ok(())
}

/// A token that looks like one of a measured round: most are the scorer's first choice, and the server's claim is near
/// the scorer's own.
fn token(round_id: &str, row: u64, generator: &mut ChaCha8Rng) -> TokenRow {
    let (answer, position) = (row / ANSWER, row % ANSWER);
    let (read, prompt) = (answer / PROMPTS, answer % PROMPTS);
    let mut uniform = || (generator.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    let rank = if uniform() < 0.9 { 1 } else { 2 + (uniform() * 8.0) as u32 };
    let logprob = uniform().ln() * 0.2;
    TokenRow {
        round_id: round_id.to_owned(),
        read_key: format!("{read:04}-candidate-5Grwva"),
        prompt_index: prompt as u32,
        position: position as u32,
        token_id: (uniform().powi(3) * VOCABULARY as f64) as u32,
        is_end: position == ANSWER - 1,
        server_logprob: Some(logprob + (uniform() - 0.5) * 1e-3),
        scorer_logprob: Some(logprob),
        scorer_rank: Some(rank),
        scorer_top_logprob: Some(if rank == 1 { logprob } else { logprob * uniform() }),
        arrival_ns: Some(((position + 1) as f64 * 8e6 + uniform() * 1e6) as i64),
        text_ns: None,
        logprob_ns: None,
    }
}
