//! Another value at one place of a pipeline's text, everything else left as it is written.
//!
//! What a round is made of is its text; so a round with another policy has another text, and whoever compares the two
//! sees exactly what was changed.

use serde_json::Value as Json;

use super::diagnostic::Diagnostics;
use super::source::Source;
use super::yaml::{self, Key, Kind, Node};

/// One step of the way to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The value of this key.
    Key(String),
    /// The item of this number, from 0.
    Item(usize),
}

/// Why a value cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The text is no YAML.
    #[error("{0}")]
    Syntax(Diagnostics),
    /// There is no such place, or a value that is not a single word or number stands there.
    #[error(
        "`{path}` cannot be set: a single value must stand there, or the mapping that it would be added to"
    )]
    Place {
        /// The place, its keys joined by dots.
        path: String,
    },
}

/// The text with another value at a place: a scalar there is replaced, and a key that is missing in the last mapping
/// that is there is added to it.
///
/// # Errors
/// [`EditError`] where the text is no YAML, or the place cannot be set without touching anything else.
pub fn with_value(source: &Source, place: &[Place], value: &Json) -> Result<Source, EditError> {
    let root = parse(source)?;
    let refused = || EditError::Place { path: path_text(place) };
    let (range, insertion) = edit(source, (&root, place), value).ok_or_else(refused)?;
    let mut text = source.text.to_string();
    text.replace_range(range, &insertion);
    let edited = Source::new(&source.path, &text);
    let mut expected = root.to_json();
    set(&mut expected, place, value).ok_or_else(refused)?;
    // Aliases, comments, folded text: whatever was misjudged, a changed text that means anything else is refused.
    if parse(&edited).is_ok_and(|node| node.to_json() == expected) { Ok(edited) } else { Err(refused()) }
}

fn parse(source: &Source) -> Result<Node, EditError> {
    yaml::parse(source).map_err(|found| EditError::Syntax(Diagnostics::new(source, found)))
}

/// The bytes to replace, and by what.
fn edit(
    source: &Source,
    (mut node, mut place): (&Node, &[Place]),
    value: &Json,
) -> Option<(std::ops::Range<usize>, String)> {
    loop {
        let Some((first, rest)) = place.split_first() else {
            let is_scalar = !matches!(node.kind, Kind::Map(_) | Kind::Seq(_) | Kind::Null);
            return is_scalar.then(|| (node.span.range(), value.to_string()));
        };
        match (&node.kind, first) {
            (Kind::Seq(items), Place::Item(index)) => node = items.get(*index)?,
            (Kind::Map(entries), Place::Key(name)) => match entries.iter().find(|(key, _)| key.name == *name)
            {
                Some((_, found)) => node = found,
                None => return added(source, (node, entries), (place, value)),
            },
            _ => return None,
        }
        place = rest;
    }
}

/// Where a mapping takes a new first key, and the text of it.
fn added(
    source: &Source,
    (node, entries): (&Node, &[(Key, Node)]),
    (place, value): (&[Place], &Json),
) -> Option<(std::ops::Range<usize>, String)> {
    let entry = entry_text(place, value)?;
    let Some((first, _)) = entries.first() else {
        let at = node.span.start + 1;
        return source.text.get(..at)?.ends_with('{').then_some((at..at, entry));
    };
    let at = first.span.start;
    let before = source.text.get(..at)?;
    if before.trim_end().ends_with('{') {
        return Some((at..at, format!("{entry}, ")));
    }
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
    Some((at..at, format!("{entry}\n{}", " ".repeat(column))))
}

/// `key: value`, mappings within one another where the place goes on.
fn entry_text(place: &[Place], value: &Json) -> Option<String> {
    let Some((Place::Key(name), rest)) = place.split_first() else { return None };
    let value =
        if rest.is_empty() { value.to_string() } else { format!("{{ {} }}", entry_text(rest, value)?) };
    Some(format!("{name}: {value}"))
}

fn set(json: &mut Json, place: &[Place], value: &Json) -> Option<()> {
    let Some((first, rest)) = place.split_first() else {
        *json = value.clone();
        return Some(());
    };
    let next = match first {
        Place::Key(name) => {
            if json.is_null() {
                *json = Json::Object(serde_json::Map::new());
            }
            json.as_object_mut()?.entry(name.as_str()).or_insert(Json::Null)
        }
        Place::Item(index) => json.get_mut(*index)?,
    };
    set(next, rest, value)
}

fn path_text(place: &[Place]) -> String {
    let names = place.iter().map(|part| match part {
        Place::Key(name) => name.clone(),
        Place::Item(index) => index.to_string(),
    });
    names.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn place(path: &str) -> Vec<Place> {
        let part = |name: &str| name.parse().map_or_else(|_| Place::Key(name.to_owned()), Place::Item);
        path.split('.').map(part).collect()
    }

    fn check(text: &str, path: &str, value: Json, expected: Option<&str>) {
        let found = with_value(&Source::new("t.yml", text), &place(path), &value);
        assert_eq!(found.as_ref().ok().map(|source| &*source.text), expected, "{text} {path}: {found:?}");
    }

    #[test]
    fn a_value_that_stands_there_is_replaced() {
        check("a: { b: 1 } # c\n", "a.b", json!(2.5), Some("a: { b: 2.5 } # c\n"));
        check(
            "a:\n  - b: 'x' # c\n    d: 1\n",
            "a.0.b",
            json!("y"),
            Some("a:\n  - b: \"y\" # c\n    d: 1\n"),
        );
        check("a: x\n", "a", json!([1, {"b": null}]), Some("a: [1,{\"b\":null}]\n"));
        check("a: |\n  long\n  text\nb: 1\n", "b", json!(true), Some("a: |\n  long\n  text\nb: true\n"));
    }

    #[test]
    fn a_value_that_is_missing_is_added() {
        check("a: { b: 1 }\n", "a.c", json!(2), Some("a: { c: 2, b: 1 }\n"));
        check("a: {}\n", "a.c.d", json!(2), Some("a: {c: { d: 2 }}\n"));
        check("a:\n  b: 1\n", "a.c.d", json!(2), Some("a:\n  c: { d: 2 }\n  b: 1\n"));
        check("a:\n  - b: 1\n", "a.0.c", json!("2"), Some("a:\n  - c: \"2\"\n    b: 1\n"));
        check("a: {\n  b: 1 }\n", "a.c", json!(2), Some("a: {\n  c: 2, b: 1 }\n"));
    }

    #[test]
    fn what_would_change_more_than_asked_is_refused() {
        check("a: { b: 1 }\n", "a", json!(1), None);
        check("a: [1]\n", "a.1", json!(1), None);
        check("a: 1\n", "a.b", json!(1), None);
        check("x: &x 1\na: *x\nb: *x\n", "x", json!(2), None);
        check("a: |\n  long\n", "a", json!("x"), None);
        check("a: [\n", "a", json!(1), None);
    }
}
