//! Whether a daemon made what it was asked for.
//!
//! A daemon ignores what it does not know: a compatible one, an older one, a proxy before it may leave out a limit and say
//! that all went well. So what was created is inspected, and everything that was asked for must be there.

use serde_json::Value;

/// The first difference of what was found from what was asked for: its path, and both values. Found may have more than was
/// asked.
pub(super) fn difference(asked: &Value, found: &Value) -> Option<String> {
    compare("", asked, found)
}

fn compare(path: &str, asked: &Value, found: &Value) -> Option<String> {
    let differs = || Some(format!("`{path}` is {found}, asked was {asked}"));
    match (asked, found) {
        // What was left to the daemon.
        (Value::Null, _) => None,
        (Value::Object(asked), found) => asked.iter().find_map(|(key, value)| {
            compare(&join(path, key), value, found.get(key).unwrap_or(&Value::Null))
        }),
        (Value::Array(own), Value::Array(others)) => {
            if own.len() != others.len() {
                return differs();
            }
            let items = own.iter().zip(others).enumerate();
            items
                .into_iter()
                .find_map(|(place, (asked, found))| compare(&join(path, &place.to_string()), asked, found))
        }
        // Nothing and an empty one are the same.
        (Value::Array(own), Value::Null) if own.is_empty() => None,
        _ if asked == found => None,
        _ => differs(),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_that_was_asked_for_is_there() {
        let check = |asked: Value, found: Value, expected: Option<&str>| {
            assert_eq!(difference(&asked, &found).as_deref(), expected, "{asked} {found}");
        };
        let asked = json!({"HostConfig": {"CapDrop": ["ALL"], "Memory": 64, "Init": null, "CapAdd": []}});
        check(
            asked.clone(),
            json!({"HostConfig": {"CapDrop": ["ALL"], "Memory": 64, "More": 1, "CapAdd": null}}),
            None,
        );
        check(
            asked.clone(),
            json!({"HostConfig": {"CapDrop": ["ALL"], "Memory": 0}}),
            Some("`HostConfig.Memory` is 0, asked was 64"),
        );
        check(asked.clone(), json!({}), Some("`HostConfig.CapDrop` is null, asked was [\"ALL\"]"));
        check(
            asked,
            json!({"HostConfig": {"CapDrop": ["ALL", "KILL"], "Memory": 64}}),
            Some("`HostConfig.CapDrop` is [\"ALL\",\"KILL\"], asked was [\"ALL\"]"),
        );
        check(
            json!({"Mounts": [{"Target": "/models", "ReadOnly": true}]}),
            json!({"Mounts": [{"Target": "/models", "ReadOnly": false}]}),
            Some("`Mounts.0.ReadOnly` is false, asked was true"),
        );
    }
}
