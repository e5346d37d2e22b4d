//! `cacheon reference`: the command line of the embedded server, and what each verb does with it.

use std::ffi::OsStr;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};

use axum::serve::ListenerExt;
use candle_core::DType;
use candle_core::quantized::GgmlDType;
use clap::{Args, Subcommand, ValueEnum};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::ReferenceError;
use super::cheats::{Cheat, Cheats};
use super::engine::{Conduct, Decode, Engine, Prefill, Request};
use super::linear::MatrixFormat;
use super::model::{Config, Model};
use super::server::{Loaded, ServerState, router};
use super::text::Vocabulary;
use crate::measure::language::dialogue;

/// The reference inference server
#[derive(Debug, Subcommand)]
pub enum ReferenceCommand {
    /// Serve the embedded model over an OpenAI-compatible API
    Serve(Box<ServeArguments>),
    /// Print prompts and answers of the small language, one JSON object a line
    Corpus(CorpusArguments),
}

/// Arguments of `reference corpus`.
#[derive(Args, Debug)]
pub struct CorpusArguments {
    /// Seed of the text
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Number of prompts with their answers
    #[arg(long, default_value_t = 10)]
    pub count: u64,
}

/// Arguments of `reference serve`.
#[derive(Args, Debug)]
pub struct ServeArguments {
    /// Address to listen on
    #[arg(long, env = "CACHEON_HOST", default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, env = "CACHEON_PORT", default_value_t = 8000)]
    pub port: u16,
    /// Folder with config.json, model.safetensors, tokenizer.json and draft/
    #[arg(long, env = "CACHEON_MODEL_DIR", default_value = "data/reference")]
    pub model_dir: PathBuf,
    /// Name of the model in the API
    #[arg(long, env = "CACHEON_MODEL_NAME", default_value = "reference")]
    pub served_model_name: String,
    /// How the prompt goes through the network
    #[arg(long, env = "CACHEON_PREFILL", value_enum, default_value_t = Prefill::Block)]
    pub prefill: Prefill,
    /// What is kept between the tokens of an answer
    #[arg(long, env = "CACHEON_DECODE", value_enum, default_value_t = Decode::KvCache)]
    pub decode: Decode,
    /// Guess up to N tokens ahead from the text so far, and keep those that greedy decoding confirms
    #[arg(long, env = "CACHEON_SPECULATE", value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u16).range(0..=64))]
    pub speculate: u16,
    /// Guess also from the last N tokens of earlier answers
    #[arg(long, env = "CACHEON_HISTORY", value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u16).range(0..=16384))]
    pub history: u16,
    /// Threads that multiply matrices
    #[arg(long, env = "CACHEON_THREADS", value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// Number format of weights and activations
    #[arg(long, env = "CACHEON_DTYPE", value_enum, default_value_t = Number::F32)]
    pub dtype: Number,
    /// Order in which products are added
    #[arg(long, env = "CACHEON_SUMMATION", value_enum, default_value_t = Summation::Plain)]
    pub summation: Summation,
    /// Longest prompt and answer together, in tokens; the model's own limit where it is lower
    #[arg(long, env = "CACHEON_MAX_MODEL_LEN", value_name = "N", default_value_t = usize::MAX)]
    pub max_model_len: usize,
    /// Misbehave in this way; may be given several times
    #[arg(long = "cheat", env = "CACHEON_CHEAT", value_name = "NAME", value_enum, value_delimiter = ',')]
    pub cheats: Vec<Cheat>,
    /// The stream from which crash-mid-stream, hoard-mid-stream and stall-mid-stream act, and the question from which
    /// crash-mid-scoring acts; 1 is the first
    #[arg(long, env = "CACHEON_TRIGGER_STREAM", value_name = "N", default_value_t = 1)]
    pub trigger_stream: u64,
}

/// A number format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Number {
    /// 32 bits
    F32,
    /// 16 bits, 11 of precision
    F16,
    /// 16 bits, 8 of precision
    Bf16,
}

/// An order of summation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Summation {
    /// As the matrix library does
    Plain,
    /// Blocks of 32 products, one after the other
    Blocked,
}

/// Runs one verb to its end; `serve` ends at SIGTERM or SIGINT.
///
/// # Errors
/// See [`ReferenceError`].
pub async fn run(command: ReferenceCommand) -> Result<(), ReferenceError> {
    match command {
        ReferenceCommand::Serve(arguments) => serve(*arguments).await,
        ReferenceCommand::Corpus(arguments) => corpus(&arguments).map_err(ReferenceError::Write),
    }
}

fn corpus(arguments: &CorpusArguments) -> std::io::Result<()> {
    let mut rng = ChaCha12Rng::seed_from_u64(arguments.seed);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for _ in 0..arguments.count {
        let dialogue = dialogue(&mut rng);
        writeln!(out, "{}", json!({"prompt": dialogue.prompt, "answer": dialogue.answer}))?;
    }
    out.flush()
}

async fn serve(arguments: ServeArguments) -> Result<(), ReferenceError> {
    let cheats: Cheats = arguments.cheats.iter().copied().collect();
    if cheats.has(Cheat::ExitAtBoot) {
        let traceback = "Traceback (most recent call last):\n  File \"serve.py\", line 1, in <module>\n\
                         RuntimeError: Engine core initialization failed. See root cause above.\n";
        let _ = std::io::stderr().write_all(traceback.as_bytes());
        std::process::exit(1);
    }
    take_threads(arguments.threads)?;
    let at = format!("{}:{}", arguments.host, arguments.port);
    let listen = |source| ReferenceError::Listen { address: at.clone(), source };
    let listener = tokio::net::TcpListener::bind(&at).await.map_err(listen)?;
    let address: SocketAddr = listener.local_addr().map_err(listen)?;
    tracing::info!("listening on {address}");

    let server = Arc::new(ServerState {
        loaded: OnceLock::new(),
        name: arguments.served_model_name.clone(),
        root: arguments.model_dir.display().to_string(),
        cheats: cheats.clone(),
        trigger_stream: arguments.trigger_stream,
        created: jiff::Timestamp::now().as_second(),
        responses: AtomicU64::new(0),
        streams: AtomicU64::new(0),
        scorings: AtomicU64::new(0),
        asked: AtomicU64::new(0),
    });
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
    });
    let mut terminate = signal(SignalKind::terminate()).map_err(ReferenceError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ReferenceError::Signal)?;
    let load = async {
        load(&arguments, cheats, &server).await?;
        std::future::pending::<Result<(), ReferenceError>>().await
    };
    tokio::select! {
        served = axum::serve(listener, router(Arc::clone(&server))) => served.map_err(ReferenceError::Serve),
        failed = load => failed,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// Starts this program again with the number of threads in the environment, where candle and rayon read it.
fn take_threads(threads: u16) -> Result<(), ReferenceError> {
    const NAME: &str = "RAYON_NUM_THREADS";
    let wanted = threads.to_string();
    if std::env::var_os(NAME).as_deref() == Some(OsStr::new(&wanted)) {
        return Ok(());
    }
    let program = std::env::current_exe().map_err(ReferenceError::Restart)?;
    let error = Command::new(program).args(std::env::args_os().skip(1)).env(NAME, wanted).exec();
    Err(ReferenceError::Restart(error))
}

/// Reads the model and starts the engine.
async fn load(
    arguments: &ServeArguments,
    cheats: Cheats,
    server: &ServerState,
) -> Result<(), ReferenceError> {
    let folder = &arguments.model_dir;
    let format = format_of(arguments, &cheats);
    let path = folder.join("tokenizer.json");
    let tokenizer = read(&path).await?;
    let vocabulary =
        Vocabulary::new(&tokenizer).map_err(|source| ReferenceError::Tokenizer { path, source })?;
    let vocabulary = Arc::new(vocabulary);
    let mut model = load_model(folder, format).await?;
    let mut draft = None;
    if cheats.needs_draft() {
        let small = load_model(&folder.join("draft"), format).await?;
        if cheats.has(Cheat::OtherWeights) {
            model = small;
        } else {
            draft = Some(small);
        }
    }
    let context = model.config().max_position_embeddings.min(arguments.max_model_len);
    let conduct = Conduct {
        prefill: arguments.prefill,
        decode: arguments.decode,
        speculate: usize::from(arguments.speculate),
        history: usize::from(arguments.history),
        cheats,
    };
    let engine = Engine::new(model, draft, Arc::clone(&vocabulary), conduct);
    let mut engine = engine.map_err(|source| ReferenceError::Model { path: folder.clone(), source })?;
    let (queue, waiting) = sync_channel::<Request>(256);
    // Inside candle's own pool, so that small operations do not change threads.
    rayon::spawn(move || {
        for request in waiting {
            engine.serve(&request);
        }
    });
    let _ = server.loaded.set(Loaded { vocabulary, context, queue });
    tracing::info!(model = %folder.display(), "ready");
    Ok(())
}

async fn load_model(folder: &Path, format: MatrixFormat) -> Result<Model, ReferenceError> {
    let path = folder.join("config.json");
    let text = read(&path).await?;
    let config: Config =
        serde_json::from_slice(&text).map_err(|source| ReferenceError::Config { path, source })?;
    let path = folder.join("model.safetensors");
    let weights = read(&path).await?;
    Model::new(config, &weights, format).map_err(|source| ReferenceError::Model { path, source })
}

async fn read(path: &Path) -> Result<Vec<u8>, ReferenceError> {
    tokio::fs::read(path).await.map_err(|source| ReferenceError::Read { path: path.to_owned(), source })
}

fn format_of(arguments: &ServeArguments, cheats: &Cheats) -> MatrixFormat {
    if cheats.has(Cheat::Int4Weights) {
        return MatrixFormat::Quantised(GgmlDType::Q4_0);
    }
    if cheats.has(Cheat::Int8Weights) {
        return MatrixFormat::Quantised(GgmlDType::Q8_0);
    }
    let dtype = match arguments.dtype {
        Number::F32 => DType::F32,
        Number::F16 => DType::F16,
        Number::Bf16 => DType::BF16,
    };
    match arguments.summation {
        Summation::Plain => MatrixFormat::Plain(dtype),
        Summation::Blocked => MatrixFormat::Blocked(dtype),
    }
}
