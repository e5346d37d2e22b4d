//! One sample of one quantity: quantiles with their bounds, means that outliers do not rule.

use super::distribution::binomial_upper_tail;

/// Finite numbers in ascending order, at least one.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample(Vec<f64>);

/// A trimmed mean with its precision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrimmedMean {
    /// Mean of the values that are left after trimming.
    pub mean: f64,
    /// Standard error of the mean; none where fewer than two values are left.
    pub standard_error: Option<f64>,
    /// Degrees of freedom of the standard error: values left, minus one.
    pub degrees: f64,
}

impl Sample {
    /// A sample of the values; none if there are no values or one of them is not finite.
    pub fn new(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        values.sort_by(f64::total_cmp);
        Some(Self(values))
    }

    /// Number of values, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a sample is never empty")]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// The values in ascending order.
    pub fn values(&self) -> &[f64] {
        &self.0
    }

    /// Arithmetic mean of the values.
    pub fn mean(&self) -> f64 {
        mean(&self.0)
    }

    /// Standard deviation of the values, with n - 1; none for one value.
    pub fn standard_deviation(&self) -> Option<f64> {
        let n = self.0.len();
        (n > 1).then(|| (squares_about(&self.0, self.mean()) / (n - 1) as f64).sqrt())
    }

    /// Root of the mean of the squares of the values.
    pub fn root_mean_square(&self) -> f64 {
        (squares_about(&self.0, 0.0) / self.0.len() as f64).sqrt()
    }

    /// Geometric mean of the values; none unless all are above zero.
    pub fn geometric_mean(&self) -> Option<f64> {
        (self.0[0] > 0.0)
            .then(|| (self.0.iter().map(|value| value.ln()).sum::<f64>() / self.0.len() as f64).exp())
    }

    /// Quantile of order `p` (0 to 1) by linear interpolation: type 7 of Hyndman & Fan, *Sample Quantiles in
    /// Statistical Packages*, American Statistician 50 (1996), which numpy and R use by default.
    pub fn quantile(&self, p: f64) -> f64 {
        let place = p.clamp(0.0, 1.0) * (self.0.len() - 1) as f64;
        let below = place.floor() as usize;
        let above = (below + 1).min(self.0.len() - 1);
        let (low, high) = (self.0[below], self.0[above]);
        low + (high - low) * (place - below as f64)
    }

    /// Upper confidence bound of the quantile of order `p`, whatever the distribution: the least order statistic
    /// X(k) with P(Binomial(n, p) < k) >= `confidence` (David & Nagaraja, *Order Statistics*, 3rd ed., 7.1).
    ///
    /// None where even the maximum does not bound it: at 99% confidence p50, p90, p95, p99 need 7, 44, 90, 459
    /// values, the arithmetic of MLPerf's early stopping.
    pub fn quantile_upper_bound(&self, p: f64, confidence: f64) -> Option<f64> {
        let n = self.0.len();
        let covers = |k: usize| 1.0 - binomial_upper_tail(k as u64, n as u64, p) >= confidence;
        let (mut low, mut high) = (1, n + 1);
        while low < high {
            let k = usize::midpoint(low, high);
            if covers(k) { high = k } else { low = k + 1 }
        }
        self.0.get(low - 1).copied()
    }

    /// Mean without the lowest and the highest `fraction` (0 to below 0.5) of the values.
    ///
    /// The standard error is the winsorised one of Tukey & McLaughlin, *Less Vulnerable Confidence and
    /// Significance Procedures for Location*, Sankhya A 25 (1963): with h values left, root of (winsorised sum of
    /// squares / (h (h - 1))), h - 1 degrees of freedom.
    pub fn trimmed_mean(&self, fraction: f64) -> TrimmedMean {
        let n = self.0.len();
        let cut = ((fraction.clamp(0.0, 0.5) * n as f64).floor() as usize).min((n - 1) / 2);
        let left = &self.0[cut..n - cut];
        let h = left.len() as f64;
        let winsorised: Vec<f64> =
            self.0.iter().map(|value| value.clamp(left[0], left[left.len() - 1])).collect();
        let squares = squares_about(&winsorised, mean(&winsorised));
        let standard_error = (left.len() > 1).then(|| (squares / (h * (h - 1.0))).sqrt());
        TrimmedMean { mean: mean(left), standard_error, degrees: h - 1.0 }
    }
}

/// Mean, kept in range although the sum may not be.
fn mean(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let sum: f64 = values.iter().sum();
    if sum.is_finite() { sum / n } else { values.iter().map(|value| value / n).sum() }
}

/// Sum of squared distances, at most the largest finite number.
fn squares_about(values: &[f64], centre: f64) -> f64 {
    values.iter().map(|value| (value - centre) * (value - centre)).sum::<f64>().min(f64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(values: &[f64]) -> Sample {
        Sample::new(values.iter().copied()).expect("sample")
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * b.abs().max(1.0)
    }

    #[test]
    fn nothing_and_not_a_number_are_no_sample() {
        assert_eq!(Sample::new([]), None);
        assert_eq!(Sample::new([1.0, f64::NAN]), None);
        assert_eq!(Sample::new([f64::INFINITY]), None);
    }

    #[test]
    fn quantiles_are_type_7() {
        // numpy.quantile([15, 20, 35, 40, 50], [.05, .3, .4, .5, 1])
        let sample = sample(&[35.0, 20.0, 15.0, 50.0, 40.0]);
        for (p, expected) in [(0.05, 16.0), (0.3, 23.0), (0.4, 29.0), (0.5, 35.0), (1.0, 50.0), (7.0, 50.0)] {
            assert!(close(sample.quantile(p), expected), "{p}");
        }
    }

    #[test]
    fn quantile_bounds_need_mlperf_s_sample_sizes() {
        let up_to = |n: u32| Sample::new((1..=n).map(f64::from)).expect("sample");
        for (p, none_over, one_over) in [(0.5, 7, 11), (0.9, 44, 64), (0.95, 90, 130), (0.99, 459, 662)] {
            assert_eq!(up_to(none_over - 1).quantile_upper_bound(p, 0.99), None, "{p}");
            assert_eq!(up_to(none_over).quantile_upper_bound(p, 0.99), Some(f64::from(none_over)), "{p}");
            assert_eq!(
                up_to(one_over - 1).quantile_upper_bound(p, 0.99),
                Some(f64::from(one_over - 1)),
                "{p}"
            );
            assert_eq!(up_to(one_over).quantile_upper_bound(p, 0.99), Some(f64::from(one_over - 1)), "{p}");
        }
    }

    #[test]
    fn trimmed_means() {
        // 2 of 10 cut at each end: left 3..=8; winsorised 3 3 3 4 5 6 7 8 8 8 has squares 42.5 about 5.5.
        let trimmed = sample(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 100.0]).trimmed_mean(0.2);
        assert!(close(trimmed.mean, 5.5));
        assert!(close(trimmed.standard_error.expect("error"), (42.5_f64 / 30.0).sqrt()));
        assert!(close(trimmed.degrees, 5.0));
        let plain = sample(&[1.0, 2.0, 4.0]).trimmed_mean(0.1);
        assert!(close(plain.mean, 7.0 / 3.0));
        assert!(close(plain.standard_error.expect("error"), (7.0_f64 / 9.0).sqrt()));
        assert_eq!(sample(&[5.0]).trimmed_mean(0.4).standard_error, None);
        assert_eq!(sample(&[5.0]).standard_deviation(), None);
    }

    #[test]
    fn geometric_means() {
        assert!(close(sample(&[1.0, 4.0, 16.0]).geometric_mean().expect("mean"), 4.0));
        assert_eq!(sample(&[0.0, 4.0]).geometric_mean(), None);
    }

    proptest! {
        #[test]
        fn everything_stays_within_the_sample(
            values in proptest::collection::vec(proptest::num::f64::NORMAL | proptest::num::f64::ZERO, 1..40),
            p in 0.0_f64..=1.0,
        ) {
            // A range beyond the largest number has no finite differences.
            prop_assume!(values.iter().all(|value| value.abs() < 1e300));
            let sample = sample(&values);
            let (low, high) = (sample.values()[0], sample.values()[sample.len() - 1]);
            let slack = 1e-9 * low.abs().max(high.abs());
            for value in [sample.mean(), sample.quantile(p), sample.trimmed_mean(p / 2.1).mean] {
                prop_assert!((low - slack..=high + slack).contains(&value), "{} not in {}..={}", value, low, high);
            }
            prop_assert!(sample.root_mean_square().is_finite());
            prop_assert!(sample.trimmed_mean(0.1).standard_error.is_none_or(f64::is_finite));
            if let Some(bound) = sample.quantile_upper_bound(p, 0.9) {
                prop_assert!(bound >= low && bound <= high);
            }
        }

        #[test]
        fn order_does_not_matter(mut values in proptest::collection::vec(-1e6_f64..1e6, 1..30)) {
            let first = sample(&values);
            values.reverse();
            prop_assert_eq!(first, sample(&values));
        }
    }
}
