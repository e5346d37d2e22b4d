//! "Did you mean": names close to one that does not exist.

use strsim::damerau_levenshtein;

/// The names in `known` that are close to `name`, at most two, the closest first.
///
/// Close is: equal but for case, `-` and `_`; or a Damerau-Levenshtein distance of at most a third of the
/// name's length (and at least one). The second is offered only if it is about as close as the first.
pub fn closest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let plain = |text: &str| text.to_lowercase().replace('_', "-");
    let wanted = plain(name);
    let limit = (name.chars().count() / 3).max(1);
    let mut found: Vec<(usize, &str)> = known
        .into_iter()
        .map(|candidate| (damerau_levenshtein(&wanted, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *candidate != name)
        .collect();
    found.sort_unstable();
    found.dedup();
    let best = found.first().map_or(0, |(distance, _)| *distance);
    found.retain(|(distance, _)| *distance <= best + 1);
    found.into_iter().take(2).map(|(_, candidate)| candidate.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_what_is_close() {
        let check = |name: &str, expected: &[&str]| {
            assert_eq!(
                closest(name, ["benchmark", "boot", "timeout", "timeout-minutes"]),
                expected,
                "{name}"
            );
        };
        check("benchmrk", &["benchmark"]);
        check("time-out", &["timeout"]);
        check("Boot", &["boot"]);
        check("timeout_minutes", &["timeout-minutes"]);
        check("publish", &[]);
        check("", &[]);
    }
}
