//! Shares of the reward as the chain takes them.

use serde::{Deserialize, Serialize};

use crate::model::{LeaderboardRow, WeightRow};

/// Where weights go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct WeightsPolicy {
    /// Subnet.
    pub netuid: u32,
    /// Whether nothing is to be sent.
    #[serde(rename = "dry-run")]
    pub is_dry_run: bool,
}

impl Default for WeightsPolicy {
    fn default() -> Self {
        Self { netuid: 0, is_dry_run: true }
    }
}

/// The weights of a leaderboard: rows with a share, in order of rank, scaled so that the largest is 65535.
///
/// The chain stores weights max-upscaled: round(share / largest share x 65535). No share at all gives no row.
pub fn weights(policy: &WeightsPolicy, leaderboard: &[LeaderboardRow]) -> Vec<WeightRow> {
    let paid = leaderboard.iter().filter(|row| row.share > 0.0 && row.share.is_finite());
    let largest = paid.clone().map(|row| row.share).fold(0.0, f64::max);
    let mut rows: Vec<(u32, WeightRow)> = paid
        .map(|row| {
            let weight = WeightRow {
                round_id: row.round_id.clone(),
                netuid: policy.netuid,
                hotkey: row.hotkey.clone(),
                uid: row.uid,
                share: row.share,
                weight: (row.share / largest * f64::from(u16::MAX)).round() as u16,
                is_dry_run: policy.is_dry_run,
                receipt: None,
            };
            (row.rank, weight)
        })
        .collect();
    rows.sort_by_key(|(rank, _)| *rank);
    rows.into_iter().map(|(_, row)| row).collect()
}
