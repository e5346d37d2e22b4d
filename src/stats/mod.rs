//! L1, statistics: each estimator with its source, each total, none that can give NaN.
//!
//! There is one door: a [`Sample`] is never empty and holds finite numbers only, in order; what it cannot
//! answer is `None`. Distributions are plain functions of numbers in range, clamped where they are not.
#![deny(clippy::disallowed_methods)]

pub mod distribution;
pub mod sample;
pub mod trend;

pub use distribution::{binomial_upper_tail, clopper_pearson, student_t_cdf, student_t_quantile};
pub use sample::{Sample, TrimmedMean};
pub use trend::Trend;
