//! What a read costs beside its server's own time: a figure, printed and never asserted.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::bench::{Bench, Test};
use super::round::root;
use super::rounds::{Arena, BUSY};

pub(crate) const TESTS: &[Test] = &[("overhead::what_a_read_costs_beside_its_server", overhead)];

/// What is timed of the reads, in the order of printing.
const PARTS: [&str; 5] = ["pull", "boot", "warm-up", "benchmark", "removal"];

fn overhead(bench: &'static Bench) {
    let serve = ["reference", "serve", "--prefill", "block"];
    let mut arena = Arena::new(bench);
    for name in ["first", "second", "third"] {
        arena.commit(name, &[&["/bin/cacheon"], &serve[..]].concat());
    }
    arena.prepare(BUSY);
    let output = arena.command(4).output().expect("starts");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let mut starts: Vec<f64> = (0..7).map(|_| start_of(&serve).as_secs_f64()).collect();
    let own = median(&mut starts);

    let rows = arena.round.rows(
        "SELECT leg, stage, EXTRACT(EPOCH FROM s.started_at_us) AS began, s.duration_ns AS took, boot_ns, warm_up_ns, benchmark_ns
         FROM step_attempts AS s JOIN reads ON read_key = leg
         WHERE job = 'measure' AND s.attempt = 1 ORDER BY leg, step_index",
    );
    let reads: Vec<&[Value]> = rows.chunk_by(|one, next| one["leg"] == next["leg"]).collect();
    let seconds = |row: &Value, column: &str| row[column].as_f64().unwrap_or_default() / 1e9;
    let began = |row: &Value| row["began"].as_f64().expect("a time");
    // The first read also brings the layers.
    let costs: Vec<[f64; PARTS.len()]> = reads
        .windows(2)
        .skip(1)
        .map(|pair| {
            let (read, next) = (pair[0], pair[1]);
            let [pull, boot, warm_up, benchmark] = read else { panic!("{read:?}") };
            let ended = began(benchmark) + seconds(benchmark, "took");
            [
                seconds(pull, "took"),
                seconds(boot, "took") - own,
                seconds(warm_up, "took") - seconds(read.first().expect("a row"), "warm_up_ns"),
                seconds(benchmark, "took") - seconds(benchmark, "benchmark_ns"),
                began(next.first().expect("a row")) - ended,
            ]
        })
        .collect();
    assert!(costs.len() >= 4, "{rows:?}");
    let medians = PARTS.iter().enumerate().map(|(place, part)| {
        let mut found: Vec<f64> = costs.iter().map(|cost| cost[place]).collect();
        format!("  {part:<10}{:7.3} s\n", median(&mut found))
    });
    let medians: String = medians.collect();
    let mut sums: Vec<f64> = costs.iter().map(|cost| cost.iter().sum()).collect();
    let worst = sums.iter().copied().fold(f64::MIN, f64::max);
    let said = format!(
        "\n{} reads on a warm engine, the server alone starts in {own:.3} s; medians beside that:\n\
         {medians}  together  {:7.3} s (worst {worst:.3} s)\n",
        costs.len(),
        median(&mut sums)
    );
    std::io::stderr().write_all(said.as_bytes()).expect("written");
}

/// The middle one.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How long the same server takes by itself, as a process, until it says it is healthy.
fn start_of(serve: &[&str]) -> Duration {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let begun = Instant::now();
    let mut server = Command::new(env!("CARGO_BIN_EXE_cacheon"))
        .args(serve)
        .env("CACHEON_HOST", "127.0.0.1")
        .env("CACHEON_PORT", address.port().to_string())
        .env("CACHEON_MODEL_DIR", root().join("data/reference"))
        .env("CACHEON_MODEL_NAME", "reference")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let is_healthy = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200"))
    };
    while !is_healthy().unwrap_or_default() {
        assert!(begun.elapsed() < Duration::from_secs(30), "the server does not start");
        assert!(server.try_wait().expect("a child").is_none(), "the server ended");
        std::thread::yield_now();
    }
    let took = begun.elapsed();
    server.kill().expect("killed");
    server.wait().expect("ended");
    took
}
