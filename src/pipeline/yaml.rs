//! From YAML text to a tree of nodes that know where they stand.
//!
//! This is the only file that names the YAML library, so that another could replace it. YAML 1.2 core schema:
//! `on`, `yes` and `012` are strings. What is hostile is bounded before and while it is read: bytes, depth,
//! nodes, aliases. Duplicate keys and merge keys are findings, and so is every syntax error; nothing here
//! knows what a pipeline is.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::budget::BudgetBreach;
use serde_yaml::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};
use serde_yaml::{Error, Location, Options, Spanned};

use super::code::Code;
use super::diagnostic::Diagnostic;
use super::source::{Source, Span};

/// The largest file that is read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
const MAX_DEPTH: usize = 48;
const MAX_NODES: usize = 100_000;

/// A value and the bytes it was written with.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What the node is, with its value.
    pub kind: Kind,
    /// A scalar's own bytes, quotes included; of a collection only its first byte.
    pub span: Span,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number that fits.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Str(String),
    /// A sequence.
    Seq(Vec<Node>),
    /// A mapping in file order; keys are unique but for case.
    Map(Vec<(Key, Node)>),
}

/// A mapping's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Text of the key.
    pub name: String,
    /// Where the key stands.
    pub span: Span,
}

impl Node {
    /// The tree as plain JSON; numbers that JSON has not become null.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.kind {
            Kind::Null => serde_json::Value::Null,
            Kind::Bool(value) => (*value).into(),
            Kind::Int(value) => (*value).into(),
            Kind::Float(value) => (*value).into(),
            Kind::Str(text) => text.as_str().into(),
            Kind::Seq(items) => items.iter().map(Self::to_json).collect(),
            Kind::Map(entries) => {
                entries.iter().map(|(key, value)| (key.name.clone(), value.to_json())).collect()
            }
        }
    }

    /// What the node is, in a user's words: `an integer`, `a mapping`.
    pub fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "a boolean",
            Kind::Int(_) => "an integer",
            Kind::Float(_) => "a number",
            Kind::Str(_) => "a string",
            Kind::Seq(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }

    /// The span to underline: a scalar itself, of a collection its first key or item.
    pub fn underlined(&self) -> Span {
        match &self.kind {
            Kind::Map(entries) => entries.first().map_or(self.span, |(key, _)| key.span),
            Kind::Seq(items) => items.first().map_or(self.span, Self::underlined),
            _ => self.span,
        }
    }
}

/// Reads one document.
///
/// # Errors
/// One finding for text that is too long or not YAML, or one for each repeated key and merge key.
pub fn parse(source: &Source) -> Result<Node, Vec<Diagnostic>> {
    let text = &*source.text;
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes; at most {MAX_BYTES} are read", text.len());
        return Err(vec![Diagnostic::error(Code::YamlSyntax, Span::at(0), message)]);
    }
    if let Some(at) = text.find('\0') {
        let message = "the file has a NUL character: it is not text";
        return Err(vec![Diagnostic::error(Code::YamlSyntax, Span::new(at, at + 1), message)]);
    }
    if text.trim_start_matches('\u{feff}').trim().is_empty() {
        return Err(vec![Diagnostic::error(Code::YamlSyntax, Span::at(0), "the file is empty")]);
    }
    let raw: Raw = serde_yaml::from_str_with_options(text, options())
        .map_err(|error| vec![syntax_error(source, error.without_snippet())])?;
    let mut findings = Vec::new();
    let node = settle(raw, &mut findings);
    if findings.is_empty() { Ok(node) } else { Err(findings) }
}

fn options() -> Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 3 * MAX_NODES,
            max_aliases: 200,
            max_anchors: 100,
            max_documents: 1,
            max_recorded_anchor_events: 20_000,
            max_total_scalar_bytes: 4 * MAX_BYTES,
        },
        strict_booleans: true,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        alias_limits: serde_yaml::alias_limits! { max_total_replayed_events: 3 * MAX_NODES },
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    }
}

fn syntax_error(source: &Source, error: &Error) -> Diagnostic {
    let start = error.location().map_or(0, |location| match location.span().byte_offset() {
        Some(offset) if offset > 0 => offset as usize,
        _ => byte_of(source, location.line(), location.column()),
    });
    let span = source.clamp(Span::new(start, start + 1));
    Diagnostic::error(Code::YamlSyntax, span, syntax_message(error))
}

/// What is wrong, in our words where the library's are about its own API or repeat the line and column.
fn syntax_message(error: &Error) -> String {
    if let Error::AliasError { error, .. } = error {
        return syntax_message(error);
    }
    let full = error.to_string();
    let message = full.split(" at line ").next().unwrap_or(&full);
    match error {
        Error::Budget { breach: BudgetBreach::Documents { .. }, .. } => {
            "a second document begins here; a file has one".to_owned()
        }
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => too_deep(),
        Error::Budget { .. } | Error::AliasReplayLimitExceeded { .. } => {
            format!(
                "there is more here, aliases counted as what they stand for, than the {MAX_NODES} nodes allowed"
            )
        }
        Error::RecursiveReferencesRequireWeakTypes { .. } => "this anchor contains itself".to_owned(),
        Error::NullIntoString { .. } => "a key must be text".to_owned(),
        _ if message == "recursion limit exceeded" => too_deep(),
        _ if message == "expected string scalar" => "a key must be text".to_owned(),
        _ => message.to_owned(),
    }
}

fn too_deep() -> String {
    format!("this is nested deeper than {MAX_DEPTH} levels")
}

/// The offset of a line and column, both from one and the column in characters.
fn byte_of(source: &Source, line: u64, column: u64) -> usize {
    let (line, column) = (line.saturating_sub(1) as usize, column.saturating_sub(1) as usize);
    let mut start = 0;
    for (index, text) in source.text.split_inclusive('\n').enumerate() {
        if index == line {
            return start + text.chars().take(column).map(char::len_utf8).sum::<usize>();
        }
        start += text.len();
    }
    start
}

fn span_of(location: Location) -> Span {
    let span = location.span();
    let start = span.byte_offset().unwrap_or(0) as usize;
    Span::new(start, start + span.byte_len().unwrap_or(0) as usize)
}

struct Raw(Spanned<RawKind>);

enum RawKind {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Seq(Vec<Raw>),
    Map(Vec<(Spanned<String>, Raw)>),
}

fn settle(raw: Raw, findings: &mut Vec<Diagnostic>) -> Node {
    let span = span_of(raw.0.referenced);
    let kind = match raw.0.value {
        RawKind::Null => Kind::Null,
        RawKind::Bool(value) => Kind::Bool(value),
        RawKind::Int(value) => Kind::Int(value),
        RawKind::Float(value) => Kind::Float(value),
        RawKind::Str(value) => Kind::Str(value),
        RawKind::Seq(items) => Kind::Seq(items.into_iter().map(|item| settle(item, findings)).collect()),
        RawKind::Map(entries) => Kind::Map(settle_map(entries, findings)),
    };
    Node { kind, span }
}

fn settle_map(entries: Vec<(Spanned<String>, Raw)>, findings: &mut Vec<Diagnostic>) -> Vec<(Key, Node)> {
    let mut settled: Vec<(Key, Node)> = Vec::with_capacity(entries.len());
    let mut seen: std::collections::HashMap<String, Span> = std::collections::HashMap::new();
    for (name, value) in entries {
        let key = Key { span: span_of(name.referenced), name: name.value };
        if key.name == "<<" {
            findings.push(
                Diagnostic::error(Code::MergeKey, key.span, "the YAML merge key `<<` is not supported")
                    .help("copy the keys; anchors without a merge are fine"),
            );
        }
        let value = settle(value, findings);
        let folded = key.name.to_lowercase();
        if let Some(first) = seen.get(&folded) {
            let message = format!("the key `{}` stands twice in this mapping", key.name);
            findings.push(
                Diagnostic::error(Code::DuplicateKey, key.span, message)
                    .label(*first, "first here")
                    .help("remove one of them; keys that differ only in case are the same key"),
            );
            continue;
        }
        seen.insert(folded, key.span);
        settled.push((key, value));
    }
    settled
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for RawKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = RawKind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<RawKind, E> {
        Ok(RawKind::Null)
    }

    fn visit_none<E>(self) -> Result<RawKind, E> {
        Ok(RawKind::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<RawKind, E> {
        Ok(RawKind::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<RawKind, E> {
        Ok(RawKind::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<RawKind, E> {
        Ok(i64::try_from(value).map_or(RawKind::Float(value as f64), RawKind::Int))
    }

    fn visit_i128<E>(self, value: i128) -> Result<RawKind, E> {
        Ok(i64::try_from(value).map_or(RawKind::Float(value as f64), RawKind::Int))
    }

    fn visit_u128<E>(self, value: u128) -> Result<RawKind, E> {
        Ok(RawKind::Float(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<RawKind, E> {
        Ok(RawKind::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<RawKind, E> {
        Ok(RawKind::Str(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<RawKind, E> {
        Ok(RawKind::Str(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<RawKind, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(RawKind::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<RawKind, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(RawKind::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    #[test]
    fn faults_are_told_in_our_words() {
        let check = |text: &str, expected: &str| {
            let found = parse(&Source::new("t.yml", text)).unwrap_err();
            assert_eq!(found[0].message, expected, "{text}");
        };
        check("a: 1\n---\nb: 2\n", "a second document begins here; a file has one");
        check(&"[".repeat(60), "this is nested deeper than 48 levels");
        check(&"- ".repeat(60), "this is nested deeper than 48 levels");
        check("a: &x [*x]\n", "this anchor contains itself");
        check("~: 1\n", "a key must be text");
        check("? [1]\n: 2\n", "a key must be text");
        check("a: b: c\n", "mapping values are not allowed in this context");
        check("x: *nope\n", "alias references unknown anchor");
    }

    fn check(text: &str, expected: &[(&str, usize)]) {
        let source = Source::new("t.yml", text);
        let found: Vec<_> = match parse(&source) {
            Ok(_) => Vec::new(),
            Err(all) => {
                all.iter().map(|d| (d.code.as_str(), source.line_column(d.span.start).line)).collect()
            }
        };
        assert_eq!(found, expected, "{text:.80}");
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        let text = "on: yes\na: 012\nb: 1_000\nc: 0x1F\nd: True\ne: ~\nf: 1.50\ng: -3\nh: .inf\n";
        let node = parse(&Source::new("t.yml", text)).unwrap();
        let Kind::Map(entries) = node.kind else { panic!("a mapping") };
        let kinds: Vec<_> = entries.into_iter().map(|(key, node)| (key.name, node.kind)).collect();
        let text = |t: &str| Kind::Str(t.to_owned());
        let expected = [
            ("on", text("yes")),
            ("a", text("012")),
            ("b", text("1_000")),
            ("c", Kind::Int(31)),
            ("d", Kind::Bool(true)),
            ("e", Kind::Null),
            ("f", Kind::Float(1.5)),
            ("g", Kind::Int(-3)),
            ("h", Kind::Float(f64::INFINITY)),
        ];
        assert_eq!(kinds, expected.map(|(name, kind)| (name.to_owned(), kind)));
    }

    #[test]
    fn spans_are_bytes_of_the_source() {
        let source = Source::new("t.yml", "é: 'it''s'\nlist: [1, *x]\n".replace("*x", "two").as_str());
        let Kind::Map(entries) = parse(&source).unwrap().kind else { panic!("a mapping") };
        assert_eq!(source.slice(entries[0].0.span), "é");
        assert_eq!(source.slice(entries[0].1.span), "'it''s'");
        assert_eq!(source.slice(entries[1].1.underlined()), "1");
    }

    #[test]
    fn faults_have_a_place() {
        check("a: 1\nb: 2\n", &[]);
        check("a: 1\nb: [\n", &[("L001", 2)]);
        check("a: 1\nA: 2\na: 3\n", &[("L004", 2), ("L004", 3)]);
        check("x: &x {a: 1}\ny:\n  <<: *x\n", &[("L007", 3)]);
        check("x: *nope\n", &[("L001", 1)]);
        check("", &[("L001", 1)]);
        check("a: \0\n", &[("L001", 1)]);
        check("a: 1\n---\nb: 2\n", &[("L001", 2)]);
        check("\u{feff}a: 1\r\nb: 2\r\n", &[]);
    }

    #[test]
    fn hostile_text_ends_quickly_with_a_place() {
        check(&"[".repeat(10_000), &[("L001", 1)]);
        check(&"{a: ".repeat(10_000), &[("L001", 1)]);
        let nested: String = (0..1_400).fold(String::new(), |mut text, depth| {
            let _ = writeln!(text, "{}a:", " ".repeat(depth));
            text
        });
        check(&nested[..nested.len().min(MAX_BYTES - 1)], &[("L001", MAX_DEPTH + 1)]);
        check(&"- ".repeat(10_000), &[("L001", 1)]);
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let below = format!("*a{}", level - 1);
            let _ = writeln!(bomb, "a{level}: &a{level} [{}]", [below.as_str(); 10].join(", "));
        }
        let source = Source::new("bomb.yml", &bomb);
        assert_eq!(parse(&source).unwrap_err().len(), 1);
        check(&"x".repeat(10_000_000), &[("L001", 1)]);
        check(&"a: [1, 2]\n".repeat(50_000), &[("L001", 25_000)]);
    }
}
