//! How fast this machine reads memory and multiplies: measured in less than a second, never to be too low.
//!
//! The best of many short sweeps counts, of each core for itself, and a factor on top allows for what they leave unused: this
//! program is compiled for every processor of its kind, a server may use the widest vectors of this one.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::ports::MachineSpeed;

/// How long memory is read.
const READING: Duration = Duration::from_millis(150);
/// How long is multiplied.
const MULTIPLYING: Duration = Duration::from_millis(50);
/// Most bytes that are read in one sweep. A larger model is at home in slower memory than this: that errs upwards.
const MOST_BYTES: u64 = 128 << 20;
/// Bytes of the vectors that this program's plain code uses.
const OWN_VECTOR: f64 = 16.0;
/// How much slower this program's own loops may be where it was built without full optimisation.
const UNOPTIMISED: f64 = if cfg!(debug_assertions) { 32.0 } else { 1.0 };
/// What is allowed for beside wider vectors: that a sweep is not at the limit.
const SLACK: f64 = 2.0;
/// A fused multiplication and addition, and four numbers of 8 bits in the place of one of 32.
const DENSER_ARITHMETIC: f64 = 2.0 * 4.0;
/// What matrix units (AMX) multiply more than the widest vectors.
const MATRIX_UNITS: f64 = 16.0;

/// Measures the machine, as a model of so many bytes sees it. Blocks for less than a second.
pub fn measure(model_bytes: u64) -> MachineSpeed {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let words = usize::try_from(model_bytes.min(MOST_BYTES)).unwrap_or(0) / size_of::<u64>();
    let each = (words / cores).max(1024);
    let (mut bytes_per_s, mut operations_per_s) = (0.0, 0.0);
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..cores).map(|_| scope.spawn(move || one_core(each))).collect();
        for core in started {
            // A thread that could not measure has measured nothing.
            let (bytes, operations) = core.join().unwrap_or_default();
            bytes_per_s += bytes;
            operations_per_s += operations;
        }
    });
    let Factors { bytes, operations } =
        Factors::of(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default());
    MachineSpeed { bytes_per_s: bytes_per_s * bytes, operations_per_s: operations_per_s * operations }
}

/// By how much more than measured a server may reach.
#[derive(Debug, PartialEq)]
struct Factors {
    bytes: f64,
    operations: f64,
}

impl Factors {
    /// By what the kernel says of the processor; the widest there is where it says nothing.
    fn of(cpuinfo: &str) -> Self {
        let line = cpuinfo.lines().find(|line| line.starts_with("flags"));
        let flags = line.map(|line| line.split_whitespace().collect::<Vec<_>>());
        let has =
            |flag: &str| flags.as_ref().is_none_or(|flags| flags.iter().any(|own| own.starts_with(flag)));
        let vector = if has("avx512") {
            64.0
        } else if has("avx") {
            32.0
        } else {
            OWN_VECTOR
        };
        let bytes = vector / OWN_VECTOR * SLACK;
        let matrices = if has("amx") { MATRIX_UNITS } else { 1.0 };
        Self { bytes, operations: bytes * DENSER_ARITHMETIC * matrices }
    }
}

/// The best bytes and operations per second of one core. Bytes are read by a loop of this program's and by the comparison of the
/// system's library, which has one for the processor's own vectors.
fn one_core(words: usize) -> (f64, f64) {
    let numbers: Vec<u64> = vec![0x0101_0101_0101_0101; words];
    let summed = best(READING / 2, || {
        let numbers = black_box(numbers.as_slice());
        black_box(sum(numbers));
        size_of_val(numbers)
    });
    let compared = best(READING / 2, || {
        let (left, right) = black_box(numbers.as_slice()).split_at(words / 2);
        let is_equal = left == right.get(..left.len()).unwrap_or_default();
        black_box(is_equal);
        2 * size_of_val(left)
    });
    let operations = best(MULTIPLYING, || {
        black_box(multiply(black_box(0.999_9)));
        MULTIPLICATIONS * LANES * 2
    });
    (compared.max(summed * UNOPTIMISED), operations * UNOPTIMISED)
}

/// The best rate per second of what a sweep counts, over at least three sweeps.
fn best(span: Duration, mut sweep: impl FnMut() -> usize) -> f64 {
    let begun = Instant::now();
    let (mut best, mut sweeps) = (0.0_f64, 0);
    while sweeps < 3 || begun.elapsed() < span {
        let started = Instant::now();
        let mut count = 0;
        // Many in one, so that the clock's own cost does not show.
        while count < 1 << 20 {
            count += sweep();
        }
        let seconds = started.elapsed().as_secs_f64();
        if seconds > 0.0 {
            best = best.max(count as f64 / seconds);
        }
        sweeps += 1;
    }
    best
}

/// Independent sums, so that no addition waits for the one before it.
fn sum(numbers: &[u64]) -> u64 {
    let mut sums = [0_u64; 32];
    let (rows, rest) = numbers.as_chunks::<32>();
    for row in rows {
        for (sum, number) in sums.iter_mut().zip(row) {
            *sum = sum.wrapping_add(*number);
        }
    }
    sums.iter().chain(rest).fold(0, |sum, number| sum.wrapping_add(*number))
}

/// Numbers that are multiplied beside each other.
const LANES: usize = 32;
/// Multiplications of each in one sweep, with an addition each.
const MULTIPLICATIONS: usize = 1 << 10;

fn multiply(factor: f32) -> f32 {
    let mut lanes: [f32; LANES] = std::array::from_fn(|lane| lane as f32);
    for _ in 0..MULTIPLICATIONS {
        for lane in &mut lanes {
            *lane = *lane * factor + 1.0;
        }
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_measured_in_less_than_a_second() {
        let begun = Instant::now();
        let small = measure(2 << 20);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        for rate in [small.bytes_per_s, small.operations_per_s] {
            assert!((1e8..1e18).contains(&rate), "{small:?}");
        }
        // A model of no bytes divides nothing by zero.
        assert!(measure(0).bytes_per_s.is_finite());
    }

    #[test]
    fn wider_vectors_are_allowed_for() {
        let check = |cpuinfo: &str, bytes: f64, operations: f64| {
            assert_eq!(Factors::of(cpuinfo), Factors { bytes, operations }, "{cpuinfo}");
        };
        check("model name : x\nflags\t\t: fpu sse2\n", 2.0, 16.0);
        check("flags\t\t: fpu sse2 avx avx2\n", 4.0, 32.0);
        check("flags\t\t: avx avx512f\n", 8.0, 64.0);
        check("flags\t\t: avx avx512f amx_bf16\n", 8.0, 1024.0);
        check("", 8.0, 1024.0);
    }
}
