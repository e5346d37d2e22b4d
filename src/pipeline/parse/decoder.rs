//! From nodes of YAML to typed values, collecting what is wrong.
//!
//! Every reader reports and goes on, so that one pass finds everything. A reader that returns `None` has
//! reported why.

use std::fmt::Display;
use std::time::Duration;

use crate::pipeline::code::Code;
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::expr::ExprError;
use crate::pipeline::source::{Source, Span};
use crate::pipeline::template::{self, Condition, Template, TemplateTree};
use crate::pipeline::yaml::{Key, Kind, Node};
use crate::pipeline::{duration, suggest};

/// An entry of a mapping.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'n> {
    pub(crate) key: &'n Key,
    pub(crate) node: &'n Node,
}

impl Slot<'_> {
    /// The span to underline: the value if it is a scalar that is there, else the key.
    pub(crate) fn underlined(&self) -> Span {
        match self.node.kind {
            Kind::Null | Kind::Seq(_) | Kind::Map(_) => self.key.span,
            _ => self.node.span,
        }
    }
}

/// A closed list of words and what each stands for.
pub(crate) type Words<T> = &'static [(&'static str, T)];

/// The source that is read, and what was found in it so far.
pub(crate) struct Decoder<'s> {
    pub(crate) source: &'s Source,
    pub(crate) findings: Vec<Diagnostic>,
    /// Every key that was asked for, with what it stands in: the grammar, as far as the source shows it.
    #[cfg(test)]
    pub(crate) asked: std::collections::BTreeSet<(String, &'static str)>,
}

impl<'s> Decoder<'s> {
    pub(crate) fn new(source: &'s Source) -> Self {
        Self {
            source,
            findings: Vec::new(),
            #[cfg(test)]
            asked: std::collections::BTreeSet::new(),
        }
    }

    pub(crate) fn report(&mut self, found: Diagnostic) {
        self.findings.push(found);
    }

    fn wrong_type(&mut self, slot: Slot<'_>, wanted: impl Display) {
        let raw = self.source.slice(slot.node.span);
        let found = match slot.node.kind {
            Kind::Null | Kind::Seq(_) | Kind::Map(_) => slot.node.describe().to_owned(),
            _ => format!("{} `{:.40}`", slot.node.describe(), raw.lines().next().unwrap_or_default()),
        };
        let message = format!("`{}` wants {wanted}, found {found}", slot.key.name);
        self.report(Diagnostic::error(Code::WrongType, slot.underlined(), message));
    }

    /// Begins to read a mapping; `what` names it in messages, such as "step" or "job `rank`".
    pub(crate) fn fields<'n>(&mut self, node: &'n Node, what: &str, at: Span) -> Option<Fields<'n>> {
        if let Kind::Map(entries) = &node.kind {
            if entries.is_empty() {
                self.report(Diagnostic::error(Code::EmptyCollection, at, format!("{what} is empty")));
                return None;
            }
            return Some(Fields { entries, what: what.to_owned(), at, asked: Vec::new() });
        }
        let message = format!("{what} must be a mapping, found {}", node.describe());
        let span = if matches!(node.kind, Kind::Null) { at } else { node.underlined() };
        self.report(Diagnostic::error(Code::WrongType, span, message));
        None
    }

    /// Reads the entries of a mapping with names of the author's choice.
    pub(crate) fn entries<'n>(&mut self, slot: Slot<'n>) -> Vec<Slot<'n>> {
        match &slot.node.kind {
            Kind::Map(entries) if entries.is_empty() => self.has_no_effect(slot),
            Kind::Map(entries) => return entries.iter().map(|(key, node)| Slot { key, node }).collect(),
            _ => self.wrong_type(slot, "a mapping"),
        }
        Vec::new()
    }

    /// Reads the items of a list.
    pub(crate) fn items<'n>(&mut self, slot: Slot<'n>) -> &'n [Node] {
        match &slot.node.kind {
            Kind::Seq(items) if items.is_empty() => self.has_no_effect(slot),
            Kind::Seq(items) => return items,
            _ => self.wrong_type(slot, "a list"),
        }
        &[]
    }

    /// Reads the items of a list, or the one item that stands there without a list.
    pub(crate) fn one_or_more<'n>(&mut self, slot: Slot<'n>) -> Vec<Slot<'n>> {
        match slot.node.kind {
            Kind::Seq(_) => self.items(slot).iter().map(|node| Slot { key: slot.key, node }).collect(),
            _ => vec![slot],
        }
    }

    fn has_no_effect(&mut self, slot: Slot<'_>) {
        let message = format!("`{}` is empty and has no effect", slot.key.name);
        self.report(
            Diagnostic::warning(Code::EmptyCollection, slot.key.span, message).help("delete the key"),
        );
    }

    /// Reads text; a number or boolean is taken as it is written.
    pub(crate) fn string(&mut self, slot: Slot<'_>) -> Option<String> {
        match &slot.node.kind {
            Kind::Str(text) => Some(text.clone()),
            Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) => {
                Some(self.source.slice(slot.node.span).to_owned())
            }
            _ => {
                self.wrong_type(slot, "a string");
                None
            }
        }
    }

    /// Reads true or false.
    pub(crate) fn boolean(&mut self, slot: Slot<'_>) -> Option<bool> {
        if let Kind::Bool(value) = slot.node.kind {
            return Some(value);
        }
        self.wrong_type(slot, "`true` or `false`");
        None
    }

    /// Reads a whole number of at least `least`.
    pub(crate) fn integer<T: TryFrom<i64>>(&mut self, slot: Slot<'_>, least: i64) -> Option<T> {
        if let Kind::Int(value) = slot.node.kind
            && value >= least
            && let Ok(value) = T::try_from(value)
        {
            return Some(value);
        }
        self.wrong_type(slot, format_args!("an integer of at least {least}"));
        None
    }

    /// Reads a duration with its unit.
    pub(crate) fn duration(&mut self, slot: Slot<'_>) -> Option<Duration> {
        if let Kind::Str(text) = &slot.node.kind {
            match duration::parse(text) {
                Ok(duration) => return Some(duration),
                Err(error) => {
                    let message = format!("`{}`: {error}", slot.key.name);
                    self.report(Diagnostic::error(Code::WrongType, slot.underlined(), message));
                }
            }
        } else {
            self.wrong_type(slot, "a duration such as `90m`");
        }
        None
    }

    /// Reads a number of minutes.
    pub(crate) fn minutes(&mut self, slot: Slot<'_>) -> Option<Duration> {
        let minutes = match slot.node.kind {
            Kind::Int(minutes) => minutes as f64,
            Kind::Float(minutes) => minutes,
            _ => f64::NAN,
        };
        if minutes > 0.0 && minutes <= 525_600.0 {
            return Some(Duration::from_secs_f64(minutes * 60.0));
        }
        self.wrong_type(slot, "a number of minutes above 0");
        None
    }

    /// Reads one word of a closed list.
    pub(crate) fn word<T: Copy>(&mut self, slot: Slot<'_>, words: Words<T>) -> Option<T> {
        let text = self.string(slot)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let message =
            format!("`{}` is `{text:.40}`, which is not one of {}", slot.key.name, known.join(", "));
        let offers = suggest::closest(&text, known);
        self.report(Diagnostic::error(Code::WrongType, slot.underlined(), message).did_you_mean(&offers));
        None
    }

    /// Reads a scalar that may contain expressions.
    pub(crate) fn template(&mut self, slot: Slot<'_>) -> Option<Template> {
        if matches!(slot.node.kind, Kind::Null | Kind::Seq(_) | Kind::Map(_)) {
            self.wrong_type(slot, "a string");
            return None;
        }
        let read = Template::of_node(self.source, slot.node);
        self.read(read)
    }

    /// Reads a scalar that may contain expressions and is text whatever it looks like.
    pub(crate) fn text(&mut self, slot: Slot<'_>) -> Option<Template> {
        if matches!(slot.node.kind, Kind::Bool(_) | Kind::Int(_) | Kind::Float(_)) {
            let raw = self.source.slice(slot.node.span);
            return Some(Template::literal(raw, slot.node.span));
        }
        self.template(slot)
    }

    /// Reads a tree of scalars that may contain expressions.
    pub(crate) fn tree(&mut self, slot: Slot<'_>) -> Option<TemplateTree> {
        let read = TemplateTree::of_node(self.source, slot.node);
        self.read(read)
    }

    /// Reads an `if`.
    pub(crate) fn condition(&mut self, slot: Slot<'_>) -> Option<Condition> {
        if matches!(slot.node.kind, Kind::Seq(_) | Kind::Map(_)) {
            self.wrong_type(slot, "an expression");
            return None;
        }
        let read = Condition::of_node(self.source, slot.node);
        let condition = self.read(read)?;
        if condition.is_mixed() {
            let message = "this condition is always true: there is text beside the `${{ }}`, so it is text";
            self.report(
                Diagnostic::error(Code::TextAroundCondition, slot.node.span, message)
                    .help("put the whole condition into one expression, or drop the braces"),
            );
        }
        Some(condition)
    }

    fn read<T>(&mut self, read: Result<T, Vec<ExprError>>) -> Option<T> {
        read.map_err(|errors| self.findings.extend(errors.iter().map(template::diagnostic))).ok()
    }

    /// Reads `timeout` or `timeout-minutes`; both together are a finding.
    pub(crate) fn timeout(&mut self, fields: &mut Fields<'_>) -> Option<Duration> {
        let (ours, theirs) = (fields.take("timeout"), fields.take("timeout-minutes"));
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            let message = format!("`timeout` and `timeout-minutes` are both set in {}", fields.what);
            self.report(
                Diagnostic::error(Code::BothSpellings, theirs.key.span, message)
                    .label(ours.key.span, "the other one")
                    .help("keep `timeout`"),
            );
        }
        match (ours, theirs) {
            (Some(slot), _) => self.duration(slot),
            (None, Some(slot)) => self.minutes(slot),
            (None, None) => None,
        }
    }

    /// Checks an id: a letter or `_`, then letters, digits, `_` and `-`.
    pub(crate) fn check_id(&mut self, what: &str, id: &str, span: Span) {
        let is_start = id.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let is_rest = id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if is_start && is_rest && id.len() < 100 && !id.starts_with("__") {
            return;
        }
        let mut better: String = id
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' })
            .take(99)
            .collect();
        if !better.starts_with(|c: char| c.is_ascii_alphabetic()) {
            better = format!("x{better}");
        }
        let message = format!(
            "{what} id `{id:.60}` is invalid: a letter, then letters, digits, `_` and `-`, under 100"
        );
        self.report(Diagnostic::error(Code::BadId, span, message).help(format!("`{better:.60}` would do")));
    }
}

/// A mapping being read. Keys that nobody asked for are reported by [`Fields::finish`].
pub(crate) struct Fields<'n> {
    entries: &'n [(Key, Node)],
    pub(crate) what: String,
    pub(crate) at: Span,
    asked: Vec<&'static str>,
}

/// Keys of GitHub's that are not supported, and why.
const DROPPED: &[(&str, &str)] = &[
    ("permissions", "there is no forge here"),
    ("environment", "there are no approvals here"),
    ("container", "the `boot` stage owns containers"),
    ("services", "the `boot` stage owns servers"),
    ("working-directory", "write `cd` in the script"),
    ("background", "a booted server lives until its job ends"),
    ("wait", "a booted server lives until its job ends"),
    ("wait-all", "a booted server lives until its job ends"),
    ("cancel", "a booted server is stopped when its job ends"),
    ("parallel", "steps run in order"),
    ("secrets", "keys never leave the controller"),
    ("snapshot", "there are no machine images here"),
    ("push", "there is no forge here"),
    ("pull_request", "there is no forge here"),
];

impl<'n> Fields<'n> {
    /// Takes the entry of this key, which from now on counts as known.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<Slot<'n>> {
        self.asked.push(name);
        self.entries.iter().find(|(key, _)| key.name == name).map(|(key, node)| Slot { key, node })
    }

    /// Takes the entry of this key; its absence is a finding.
    pub(crate) fn require(&mut self, name: &'static str, decoder: &mut Decoder<'_>) -> Option<Slot<'n>> {
        let slot = self.take(name);
        if slot.is_none() {
            let message = format!("{} has no `{name}`", self.what);
            decoder.report(Diagnostic::error(Code::MissingKey, self.at, message));
        }
        slot
    }

    /// Reports the keys that do not exist.
    pub(crate) fn finish(self, decoder: &mut Decoder<'_>) {
        #[cfg(test)]
        decoder.asked.extend(self.asked.iter().map(|key| (super::grammar::kind(&self.what), *key)));
        for (key, _) in self.entries.iter().filter(|(key, _)| !self.asked.contains(&key.name.as_str())) {
            let message = format!("unknown key `{:.60}` in {}", key.name, self.what);
            let found = Diagnostic::error(Code::UnknownKey, key.span, message);
            let dropped = DROPPED.iter().find(|(name, _)| *name == key.name);
            decoder.report(match dropped {
                Some((_, why)) => found.help(format!("a key of GitHub's that is not supported: {why}")),
                None => found.did_you_mean(&suggest::closest(&key.name, self.asked.iter().copied())),
            });
        }
    }
}
