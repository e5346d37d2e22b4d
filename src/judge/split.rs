//! How places are taken and what they are paid.

use serde::{Deserialize, Serialize};

/// How places are taken, and turned into a reward.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RankPolicy {
    /// How the reward is split by place.
    pub split: Split,
    /// A commitment goes before an earlier one where it is proven faster by more than this share.
    pub lead: f64,
    /// Standard errors by which the first look may have done a submission wrong that is measured again all the same.
    pub slack: f64,
    /// Most submissions that are measured again.
    pub max_finalists: u32,
}

impl Default for RankPolicy {
    fn default() -> Self {
        Self { split: Split::default(), lead: 0.01, slack: 1.0, max_finalists: 8 }
    }
}

/// Shares of the reward by place. What nobody earned is not handed to others.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// The first place gets all of it.
    #[default]
    WinnerTakesAll,
    /// The first place gets the first share, the second the second, and so on.
    Shares(Shares),
}

/// Shares that are each 0 to 1 and together at most 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<f64>", into = "Vec<f64>")]
pub struct Shares(pub(super) Vec<f64>);

/// Shares that are no split: one is not within 0 to 1, or together they are more than 1.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("shares must each lie between 0 and 1 and sum to at most 1, these are {0:?}")]
pub struct InvalidShares(Vec<f64>);

impl TryFrom<Vec<f64>> for Shares {
    type Error = InvalidShares;

    fn try_from(shares: Vec<f64>) -> Result<Self, Self::Error> {
        // Three shares of a third written in decimals may sum to a hair above one.
        let is_split = shares.iter().all(|share| (0.0..=1.0).contains(share))
            && shares.iter().sum::<f64>() <= 1.0 + 1e-9;
        if is_split { Ok(Self(shares)) } else { Err(InvalidShares(shares)) }
    }
}

impl From<Shares> for Vec<f64> {
    fn from(shares: Shares) -> Self {
        shares.0
    }
}

impl Split {
    /// How many places are paid; at least the first one counts as such.
    pub(super) fn paid_places(&self) -> usize {
        match self {
            Self::WinnerTakesAll => 1,
            Self::Shares(shares) => {
                shares.0.iter().rposition(|share| *share > 0.0).map_or(1, |last| last + 1)
            }
        }
    }

    pub(super) fn share(&self, place: usize) -> f64 {
        match self {
            Self::WinnerTakesAll => f64::from(u8::from(place == 0)),
            Self::Shares(shares) => shares.0.get(place).copied().unwrap_or(0.0),
        }
    }
}
