//! Shares of the reward as the chain takes them.

use serde::{Deserialize, Serialize};

use crate::model::{LeaderboardRow, WeightRow};

/// Which subnet the weights are for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct WeightsPolicy {
    /// Number of the subnet.
    pub netuid: u32,
    /// Whether the weights are only written down, and nothing is sent.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn row(rank: u32, share: f64) -> LeaderboardRow {
        LeaderboardRow { rank, hotkey: format!("h{rank}"), share, ..LeaderboardRow::default() }
    }

    #[test]
    fn the_largest_share_is_65535() {
        let check = |shares: &[f64], expected: &[u16]| {
            let leaderboard: Vec<LeaderboardRow> =
                (1..).zip(shares).map(|(rank, share)| row(rank, *share)).collect();
            let rows = weights(&WeightsPolicy::default(), &leaderboard);
            assert_eq!(rows.iter().map(|row| row.weight).collect::<Vec<_>>(), expected, "{shares:?}");
            assert!(rows.iter().all(|row| row.is_dry_run && row.receipt.is_none()));
        };
        check(&[], &[]);
        check(&[0.0, 0.0], &[]);
        check(&[1.0, 0.0], &[65535]);
        check(&[0.8, 0.2], &[65535, 16384]);
        check(&[0.2, 0.0, 0.2], &[65535, 65535]);
        check(&[0.5, 1e-9], &[65535, 0]);
        check(&[f64::NAN, 0.5], &[65535]);
    }

    #[test]
    fn a_policy_is_dry_unless_told_otherwise() {
        let policy: WeightsPolicy = serde_json::from_str(r#"{"netuid":14}"#).expect("policy");
        assert!(policy.is_dry_run);
        let policy: WeightsPolicy = serde_json::from_str(r#"{"netuid":14,"dry-run":false}"#).expect("policy");
        assert!(!policy.is_dry_run);
    }
}
