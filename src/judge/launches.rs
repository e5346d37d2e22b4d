//! How many launches and prompts a round needs to see an effect of a given size, on a machine of given noise.

use serde::{Deserialize, Serialize};

use super::order::comparisons;
use super::score::{ScorePolicy, chain_degrees};
use super::split::RankPolicy;
use crate::stats::student_t_quantile;

/// What a round should be able to see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Detect {
    /// The smallest advantage that should be seen: 0.05 is 5% faster.
    pub effect: f64,
    /// Probability with which it is seen after both looks.
    #[serde(default = "default_power")]
    pub power: f64,
    /// Noise of one launch on this machine: the standard deviation of ln of a read's time.
    pub noise: f64,
    /// Noise of one prompt within a launch: the standard deviation of ln of its time, launch and prompt paired out.
    #[serde(default = "default_prompt_noise")]
    pub prompt_noise: f64,
    /// Number of finalists that the second look is laid out for.
    #[serde(default = "default_finalists")]
    pub finalists: u32,
}

const fn default_power() -> f64 {
    0.9
}

const fn default_prompt_noise() -> f64 {
    0.05
}

const fn default_finalists() -> u32 {
    4
}

/// What a round needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchPlan {
    /// Launches of each submission in the first look.
    pub measure: u32,
    /// Launches of each finalist in the second look.
    pub confirm: u32,
    /// Prompts of each read.
    pub prompts: u32,
}

/// Why no plan is laid out.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum NoPlan {
    /// A number is not in its range.
    #[error("`{name}` is {value}, want {want}")]
    Range {
        /// Name of the key.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it may be.
        want: &'static str,
    },
    /// The effect is too small for the machine.
    #[error(
        "an effect of {effect} at a noise of {noise} needs more than {most} launches: the bar of {bar} leaves {left:.4} of it"
    )]
    TooMany {
        /// The effect.
        effect: f64,
        /// The noise of one launch.
        noise: f64,
        /// Most launches that are tried.
        most: u32,
        /// The share by which the bar is above 1.
        bar: f64,
        /// What is left of the effect above the bar, in ln.
        left: f64,
    },
}

/// Probability with which the first look leaves a submission of that effect to be measured again.
const SCREEN_POWER: f64 = 0.999;

/// By how much the standard error that is used exceeds the one of the launches: it is the largest of three estimates
/// (by simulation, at two to twenty launches).
const LARGEST_OF_THREE: f64 = 1.3;

/// Most launches of one submission in one look.
pub(super) const MAX_LAUNCHES: u32 = 64;

impl Detect {
    /// The fewest launches and prompts that see the effect among so many submissions.
    ///
    /// The first look must only not lose it: there the estimate has to exceed the bar. The second one must prove it,
    /// before an earlier submission as before the baseline.
    ///
    /// # Errors
    /// A number out of its range, or more than 64 launches.
    pub fn plan(
        &self,
        (score, rank): (&ScorePolicy, &RankPolicy),
        submissions: u32,
    ) -> Result<LaunchPlan, NoPlan> {
        self.check()?;
        let submissions = f64::from(submissions.max(1));
        let screen = |launches: f64| Trial {
            alpha: 0.5,
            power: SCREEN_POWER,
            bar: score.margin,
            error: self.noise * (1.5 / launches).sqrt(),
            degrees: launches - 1.0 + degrees(score, &[submissions * launches]),
        };
        let measure = self.fewest(screen)?;
        let pairs = submissions * f64::from(measure);
        let alpha = score.alpha / comparisons(self.finalists.max(1) as usize) as f64;
        let confirm = |launches: f64| Trial {
            alpha,
            power: self.power,
            bar: score.margin.max(rank.lead),
            error: LARGEST_OF_THREE * self.noise * (2.0 / launches).sqrt(),
            degrees: launches - 1.0 + degrees(score, &[pairs, launches]),
        };
        let confirm = self.fewest(confirm)?;
        let prompts = (self.prompt_noise / self.noise).powi(2).ceil() as u32;
        Ok(LaunchPlan { measure, confirm, prompts: prompts.max(score.min_prompts) })
    }

    fn check(&self) -> Result<(), NoPlan> {
        let range = |name, value: f64, (low, high), want| {
            if value > low && value < high { Ok(()) } else { Err(NoPlan::Range { name, value, want }) }
        };
        range("effect", self.effect, (0.0, 100.0), "above 0, below 100")?;
        range("power", self.power, (0.0, 1.0), "above 0, below 1")?;
        range("noise", self.noise, (0.0, 1.0), "above 0, below 1")?;
        range("prompt-noise", self.prompt_noise, (-1e-12, 10.0), "0 to below 10")
    }

    fn fewest(&self, trial: impl Fn(f64) -> Trial) -> Result<u32, NoPlan> {
        let sees = |launches: &u32| {
            let trial = trial(f64::from(*launches));
            let quantiles = student_t_quantile(1.0 - trial.alpha, trial.degrees)
                .zip(student_t_quantile(trial.power, trial.degrees));
            let left = self.effect.ln_1p() - trial.bar.max(0.0).ln_1p();
            quantiles.is_some_and(|(pass, seen)| left >= (pass + seen) * trial.error)
        };
        (1..=MAX_LAUNCHES).find(sees).ok_or_else(|| {
            let bar = trial(1.0).bar.max(0.0);
            let left = self.effect.ln_1p() - bar.ln_1p();
            NoPlan::TooMany { effect: self.effect, noise: self.noise, most: MAX_LAUNCHES, bar, left }
        })
    }
}

/// One comparison with the bar.
struct Trial {
    alpha: f64,
    power: f64,
    bar: f64,
    error: f64,
    degrees: f64,
}

/// Degrees of freedom of the noise that chains of so many pairs of baseline reads tell, with the policy's own.
fn degrees(score: &ScorePolicy, chains: &[f64]) -> f64 {
    let pooled = score.pooled_noise.map_or(0.0, |_| score.pooled_degrees.max(0.0));
    chain_degrees(chains.iter().sum()) + pooled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(effect: f64, noise: f64, submissions: u32) -> Result<LaunchPlan, NoPlan> {
        let detect =
            Detect { effect, noise, ..serde_json::from_str(r#"{"effect":1,"noise":1}"#).expect("reads") };
        detect.plan((&ScorePolicy::default(), &RankPolicy::default()), submissions)
    }

    #[test]
    fn smaller_effects_and_noisier_machines_need_more_launches() {
        let launches = |effect, noise, submissions| {
            let plan = plan(effect, noise, submissions).expect("a plan");
            (plan.measure, plan.confirm)
        };
        insta::assert_debug_snapshot!(
            [
                (0.05, 0.003, 8),
                (0.05, 0.01, 1),
                (0.05, 0.01, 8),
                (0.05, 0.01, 41),
                (0.05, 0.02, 8),
                (0.03, 0.01, 8)
            ]
            .map(|(effect, noise, submissions)| launches(effect, noise, submissions)),
        );
        assert_eq!(plan(0.05, 0.01, 8).expect("a plan").prompts, 25);
        assert_eq!(plan(0.05, 0.05, 8).map(|plan| plan.prompts).ok(), None, "64 launches do not see it");
    }

    #[test]
    fn what_cannot_be_seen_is_refused() {
        let message = |effect, noise| plan(effect, noise, 8).expect_err("no plan").to_string();
        insta::assert_snapshot!(
            [(0.01, 0.01), (0.05, 0.0), (0.05, f64::NAN), (-1.0, 0.01)]
                .map(|(effect, noise)| message(effect, noise))
                .join("\n")
        );
    }
}
