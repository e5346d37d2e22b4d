//! Whether a series rises or falls.

/// Most values that are compared, pair by pair; of more, as many are taken at equal distances.
const MOST: usize = 512;

/// How a series goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trend {
    /// Kendall's rank correlation of the values with their order: -1 where each is smaller than the one before, 1 where each is
    /// larger, about 0 where order does not matter.
    pub tau: f64,
    /// The same in standard deviations of a series without trend (Mann-Kendall test; normal from about ten values on).
    pub z: f64,
}

impl Trend {
    /// Of finite values in their order; none of fewer than ten.
    ///
    /// H. B. Mann, Nonparametric tests against trend, Econometrica 13 (1945), 245-259. Equal values count half, which
    /// makes `z` smaller than it could be.
    pub fn of(values: &[f64]) -> Option<Self> {
        let step = values.len().div_ceil(MOST).max(1);
        let values: Vec<f64> = values.iter().copied().step_by(step).collect();
        if values.len() < 10 || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let mut sum = 0.0;
        for (place, earlier) in values.iter().enumerate() {
            for later in &values[place + 1..] {
                sum += match later.total_cmp(earlier) {
                    std::cmp::Ordering::Greater => 1.0,
                    std::cmp::Ordering::Less => -1.0,
                    std::cmp::Ordering::Equal => 0.0,
                };
            }
        }
        let n = values.len() as f64;
        let variance = n * (n - 1.0) * (2.0 * n + 5.0) / 18.0;
        Some(Self { tau: sum / (n * (n - 1.0) / 2.0), z: sum / variance.sqrt() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_alone_decides() {
        let rising: Vec<f64> = (0..20).map(|value| f64::from(value * value)).collect();
        let falling: Vec<f64> = rising.iter().rev().copied().collect();
        let up = Trend::of(&rising).expect("a trend");
        let down = Trend::of(&falling).expect("a trend");
        assert!((up.tau - 1.0).abs() < 1e-12 && (down.tau + 1.0).abs() < 1e-12);
        // 190 pairs; the variance is 20 * 19 * 45 / 18 = 950.
        assert!((up.z - 190.0 / 950.0_f64.sqrt()).abs() < 1e-12);
        assert!((up.z + down.z).abs() < 1e-12);
        assert_eq!(Trend::of(&[3.0; 20]), Some(Trend { tau: 0.0, z: 0.0 }));
        let wave: Vec<f64> = (0..20).map(|value| f64::from(value % 2)).collect();
        assert!(Trend::of(&wave).expect("a trend").z.abs() < 1.0);
    }

    #[test]
    fn few_values_and_what_is_no_number_have_none() {
        assert_eq!(Trend::of(&[]), None);
        assert_eq!(Trend::of(&[1.0; 9]), None);
        assert_eq!(Trend::of(&[f64::NAN; 12]), None);
    }

    #[test]
    fn a_long_series_is_thinned() {
        let falling: Vec<f64> = (0..100_000).rev().map(f64::from).collect();
        assert!((Trend::of(&falling).expect("a trend").tau + 1.0).abs() < 1e-12);
    }
}
