//! Tails and quantiles of the distributions that decisions rest on: Student's t, the binomial, the beta.
//!
//! All go through the regularised incomplete beta function, evaluated by the continued fraction of DLMF 8.17.22
//! (<https://dlmf.nist.gov/8.17>) with Lentz's method; quantiles are found by bisection, which cannot diverge.

/// Natural logarithm of the gamma function for x > 0, to about 1e-14: Lanczos' approximation (SIAM J. Numer. Anal.
/// B 1, 1964) with g = 7 and Godfrey's nine coefficients.
fn ln_gamma(x: f64) -> f64 {
    const COEFFICIENTS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let base = x + 7.5;
    let series: f64 = COEFFICIENTS.iter().zip(1_u32..).map(|(c, k)| c / (x + f64::from(k))).sum::<f64>()
        + 0.999_999_999_999_809_9;
    0.5 * std::f64::consts::TAU.ln() + (x + 0.5) * base.ln() - base + series.ln()
}

/// Regularised incomplete beta function `I_x(a, b)` for a, b > 0; x is clamped to 0 to 1.
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    let ln_front = ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p();
    // The fraction converges fast below the mean; above it the mirrored one does.
    if x <= (a + 1.0) / (a + b + 2.0) {
        (ln_front.exp() * beta_fraction(a, b, x) / a).clamp(0.0, 1.0)
    } else {
        (1.0 - ln_front.exp() * beta_fraction(b, a, 1.0 - x) / b).clamp(0.0, 1.0)
    }
}

fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away_from_zero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut upper = 1.0;
    let mut lower = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = lower;
    // Steps needed grow with the root of a + b: 10,000 serve samples beyond any round's.
    for m in (1_u32..10_000).map(f64::from) {
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        lower = 1.0 / away_from_zero(1.0 + even * lower);
        upper = away_from_zero(1.0 + even / upper);
        fraction *= lower * upper;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        lower = 1.0 / away_from_zero(1.0 + odd * lower);
        upper = away_from_zero(1.0 + odd / upper);
        let step = lower * upper;
        fraction *= step;
        if (step - 1.0).abs() < 1e-15 {
            break;
        }
    }
    fraction
}

/// P(X >= `k`) for X binomial with `n` trials of probability `p`: `I_p(k, n - k + 1)`, DLMF 8.17.5.
pub fn binomial_upper_tail(k: u64, n: u64, p: f64) -> f64 {
    match k {
        0 => 1.0,
        k if k > n => 0.0,
        k => incomplete_beta(k as f64, (n - k) as f64 + 1.0, p),
    }
}

/// Two-sided exact confidence interval of a probability after `k` of `n` successes (Clopper & Pearson,
/// Biometrika 26, 1934). `n` = 0 gives 0 to 1.
pub fn clopper_pearson(k: u64, n: u64, confidence: f64) -> (f64, f64) {
    let k = k.min(n);
    let tail = (1.0 - confidence.clamp(0.0, 1.0)) / 2.0;
    let lower = if k == 0 { 0.0 } else { bisect((0.0, 1.0), |p| binomial_upper_tail(k, n, p) < tail) };
    let upper =
        if k == n { 1.0 } else { bisect((0.0, 1.0), |p| 1.0 - binomial_upper_tail(k + 1, n, p) > tail) };
    (lower, upper)
}

/// P(T <= `t`) for Student's t with `degrees` > 0 of freedom, DLMF 8.17.9 and Abramowitz & Stegun 26.7.1.
pub fn student_t_cdf(t: f64, degrees: f64) -> f64 {
    let tail = incomplete_beta(degrees / 2.0, 0.5, degrees / (degrees + t * t)) / 2.0;
    if t > 0.0 { 1.0 - tail } else { tail }
}

/// The t with P(T <= t) = `p` for Student's t with `degrees` of freedom; none unless 0 < p < 1 and degrees > 0.
pub fn student_t_quantile(p: f64, degrees: f64) -> Option<f64> {
    if !(p > 0.0 && p < 1.0 && degrees > 0.0 && degrees.is_finite()) {
        return None;
    }
    if p < 0.5 {
        return student_t_quantile(1.0 - p, degrees).map(|t| -t);
    }
    let upper_tail = |t: f64| incomplete_beta(degrees / 2.0, 0.5, degrees / (degrees + t * t)) / 2.0;
    let mut high = 1.0;
    while upper_tail(high) > 1.0 - p && high < 1e150 {
        high *= 2.0;
    }
    Some(bisect((0.0, high), |t| upper_tail(t) > 1.0 - p))
}

/// Where a condition that holds below and not above turns, to about the last bit.
fn bisect((mut low, mut high): (f64, f64), is_below: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            break;
        }
        if is_below(middle) { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(got: f64, expected: f64) {
        assert!((got - expected).abs() <= 1e-9 * expected.abs().max(1e-300), "{got} is not {expected}");
    }

    #[test]
    fn gamma() {
        check(ln_gamma(1.0) + 1.0, 1.0);
        check(ln_gamma(0.5), std::f64::consts::PI.sqrt().ln());
        check(ln_gamma(11.0), 3_628_800_f64.ln());
        check(ln_gamma(171.0), 706.573_062_245_787_5);
    }

    #[test]
    fn quantiles_of_t() {
        // Table of Abramowitz & Stegun 26.10, digits from closed forms where they exist.
        let one = |p: f64| (std::f64::consts::PI * (p - 0.5)).tan();
        let two = |p: f64| (2.0 * p - 1.0) / (2.0 * p * (1.0 - p)).sqrt();
        for p in [0.6, 0.9, 0.975, 0.9999] {
            check(student_t_quantile(p, 1.0).expect("t"), one(p));
            check(student_t_quantile(p, 2.0).expect("t"), two(p));
        }
        for (p, degrees, expected) in [
            (0.975, 5.0, 2.571),
            (0.95, 10.0, 1.812),
            (0.995, 30.0, 2.750),
            (0.975, 120.0, 1.980),
            (0.975, 1e9, 1.960),
            (0.025, 5.0, -2.571),
        ] {
            let t = student_t_quantile(p, degrees).expect("t");
            assert!((t - expected).abs() < 5e-4, "{p} {degrees}: {t}");
            check(student_t_cdf(t, degrees), p);
        }
        assert_eq!(student_t_quantile(0.5, 0.0), None);
        assert_eq!(student_t_quantile(1.0, 3.0), None);
        assert_eq!(student_t_quantile(f64::NAN, 3.0), None);
    }

    #[test]
    fn binomial_tails() {
        check(binomial_upper_tail(1, 10, 0.5), 1023.0 / 1024.0);
        check(binomial_upper_tail(10, 10, 0.5), 1.0 / 1024.0);
        check(binomial_upper_tail(2, 3, 0.1), 0.028);
        check(binomial_upper_tail(0, 5, 0.1), 1.0);
        check(binomial_upper_tail(6, 5, 0.1), 0.0);
        // Sum over k of the probability mass, by definition.
        let mass = |k: u32| {
            (1..=k).map(|i| f64::from(1441 - i) / f64::from(i)).product::<f64>()
                * 3e-4_f64.powf(f64::from(k))
                * (1.0 - 3e-4_f64).powf(f64::from(1440 - k))
        };
        check(binomial_upper_tail(6, 1440, 3e-4), (6..60).map(mass).sum());
    }

    #[test]
    fn intervals() {
        // Closed forms: no success in n has the upper bound 1 - (tail)^(1/n).
        let (low, high) = clopper_pearson(0, 10, 0.95);
        check(low, 0.0);
        check(high, 1.0 - 0.025_f64.powf(0.1));
        let (low, high) = clopper_pearson(5, 10, 0.95);
        assert!((low - 0.187_086).abs() < 1e-6 && (high - 0.812_914).abs() < 1e-6, "{low} {high}");
        assert_eq!(clopper_pearson(0, 0, 0.95), (0.0, 1.0));
    }

    proptest! {
        #[test]
        fn tails_are_probabilities_and_fall(k in 0_u64..300, n in 0_u64..300, p in 0.0_f64..=1.0) {
            let tail = binomial_upper_tail(k, n, p);
            prop_assert!((0.0..=1.0).contains(&tail));
            prop_assert!(binomial_upper_tail(k + 1, n, p) <= tail + 1e-12);
        }

        #[test]
        fn quantile_and_cdf_agree(p in 0.001_f64..0.999, degrees in 0.5_f64..200.0) {
            let t = student_t_quantile(p, degrees).expect("t");
            prop_assert!((student_t_cdf(t, degrees) - p).abs() < 1e-9);
        }
    }
}
