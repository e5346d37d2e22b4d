//! What is wrong with a file, and how it is shown.
//!
//! A [`Diagnostic`] is data: a code, a message, a span, other spans that matter, and the edit that would
//! help. Drawing is `annotate-snippets`' work (this is the only file that names it); lines for machines come
//! from [`Diagnostic::to_json`]. Findings are collected, never thrown one at a time: see [`Diagnostics`].

use std::fmt;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde_json::{Value as Json, json};

use super::code::Code;
use super::source::{LineColumn, Source, Span};

/// The longest line that is drawn, in bytes.
const LONGEST_LINE: usize = 2_000;
/// The most findings that are kept of one file.
pub const MAX_FINDINGS: usize = 100;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, and probably does not mean what it says.
    Warning,
    /// Nothing is wrong, but something is worth knowing.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// Whether rendered text carries terminal colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// Plain text.
    Never,
    /// ANSI escapes.
    Always,
}

/// Another span, which explains the finding's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// What is pointed at.
    pub span: Span,
    /// What stands there, in words.
    pub text: String,
}

/// One finding in one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The check that found it.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub message: String,
    /// Where it is wrong.
    pub span: Span,
    /// What stands at `span`, where the message alone does not say it.
    pub note: Option<String>,
    /// Other spans that matter.
    pub labels: Vec<Label>,
    /// The edit that would help.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error at a span.
    pub fn error(code: Code, span: Span, message: impl Into<String>) -> Self {
        let (note, help) = (None, None);
        Self {
            code,
            severity: Severity::Error,
            message: message.into(),
            span,
            note,
            labels: Vec::new(),
            help,
        }
    }

    /// A warning at a span.
    pub fn warning(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, span, message) }
    }

    /// The finding with words under its own span.
    #[must_use]
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.note = Some(text.into());
        self
    }

    /// The finding with another span and words for it.
    #[must_use]
    pub fn label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    /// The finding with an edit that would help.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// The finding with "did you mean", where there is something to offer.
    #[must_use]
    pub fn did_you_mean(self, offers: &[String]) -> Self {
        match offers {
            [] => self,
            [one] => self.help(format!("did you mean `{one}`?")),
            [one, two, ..] => self.help(format!("did you mean `{one}` or `{two}`?")),
        }
    }

    /// The finding drawn over its source, as rustc draws its own. Of a line too long to be read only its number
    /// and column are given.
    pub fn render(&self, source: &Source, color: Color) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Note => Level::NOTE,
        };
        let title = level.primary_title(self.message.as_str()).id(self.code.as_str());
        let mut group: Group<'_> = if let Some(window) = self.window(source) {
            title.element(self.snippet(source, window))
        } else {
            let LineColumn { line, column } = source.line_column(self.span.start);
            title.element(Origin::path(&*source.path).line(line).char_column(column))
        };
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let renderer = match color {
            Color::Never => Renderer::plain(),
            Color::Always => Renderer::styled(),
        };
        renderer.render(&[group])
    }

    /// The whole lines that hold all spans; `None` if one of those lines is too long to be drawn.
    fn window(&self, source: &Source) -> Option<Span> {
        let places = self.labels.iter().map(|label| label.span).chain([self.span]);
        let mut window = source.clamp(self.span);
        for place in places.map(|place| source.clamp(place)) {
            window = window.to(place);
            let lines = source.lines_around(place);
            if lines.end - lines.start > LONGEST_LINE {
                return None;
            }
        }
        Some(source.lines_around(window))
    }

    fn snippet<'s>(
        &'s self,
        source: &'s Source,
        window: Span,
    ) -> Snippet<'s, annotate_snippets::Annotation<'s>> {
        let inside = |span: Span| {
            let span = source.clamp(span);
            span.start - window.start..span.end - window.start
        };
        let mut primary = AnnotationKind::Primary.span(inside(self.span));
        if let Some(note) = &self.note {
            primary = primary.label(note.as_str());
        }
        let contexts = self
            .labels
            .iter()
            .map(|label| AnnotationKind::Context.span(inside(label.span)).label(label.text.as_str()));
        Snippet::source(source.slice(window))
            .line_start(source.line_column(window.start).line)
            .path(&*source.path)
            .annotation(primary)
            .annotations(contexts)
    }

    /// The finding for machines: severity, code, message, file, line, column, byte span, help, labels.
    pub fn to_json(&self, source: &Source) -> Json {
        let place = |span: Span| {
            let (start, end) = (source.line_column(span.start), source.line_column(span.end));
            json!({
                "file": &*source.path,
                "line": start.line, "column": start.column,
                "end_line": end.line, "end_column": end.column,
                "start_byte": span.start, "end_byte": span.end,
            })
        };
        let mut object = place(source.clamp(self.span));
        object["severity"] = json!(self.severity.to_string());
        object["code"] = json!(self.code.as_str());
        object["message"] = json!(self.message);
        object["help"] = json!(self.help);
        let labels = self.labels.iter().map(|label| {
            let mut at = place(source.clamp(label.span));
            at["message"] = json!(label.text);
            at
        });
        object["labels"] = labels.collect();
        object
    }
}

/// All findings of one pass over one source, in the order of their spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    /// The source that the findings are about.
    pub source: Source,
    /// The findings, sorted by span; the worst ones, if there were more than [`MAX_FINDINGS`].
    pub items: Vec<Diagnostic>,
    /// Number of findings that were left out.
    pub omitted: usize,
}

impl Diagnostics {
    /// The findings sorted by span, and repeated ones dropped.
    pub fn new(source: &Source, mut items: Vec<Diagnostic>) -> Self {
        let order =
            |a: &Diagnostic, b: &Diagnostic| (a.span, a.code, &a.message).cmp(&(b.span, b.code, &b.message));
        items.sort_by(order);
        items.dedup();
        let omitted = items.len().saturating_sub(MAX_FINDINGS);
        if omitted > 0 {
            items.sort_by_key(|item| item.severity);
            items.truncate(MAX_FINDINGS);
            items.sort_by(order);
        }
        Self { source: source.clone(), items, omitted }
    }

    /// Whether one of the findings is an error.
    pub fn has_errors(&self) -> bool {
        self.items.iter().any(|item| item.severity == Severity::Error)
    }

    /// All findings drawn, a blank line between two.
    pub fn render(&self, color: Color) -> String {
        let mut drawn: Vec<_> = self.items.iter().map(|item| item.render(&self.source, color)).collect();
        if self.omitted > 0 {
            drawn.push(format!("and {} more", self.omitted));
        }
        drawn.join("\n\n")
    }

    /// All findings as a JSON array, one object for each.
    pub fn to_json(&self) -> Json {
        self.items.iter().map(|item| item.to_json(&self.source)).collect()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Color::Never))
    }
}

impl std::error::Error for Diagnostics {}

/// A checked value beside what is worth saying about its file.
#[derive(Debug, Clone)]
pub struct Parsed<T> {
    /// The checked value.
    pub value: T,
    /// Warnings and notes; never an error.
    pub warnings: Diagnostics,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_drawn_with_both_places_and_its_help() {
        let source = Source::new("round.yml", "jobs:\n  evaluate: 1\n  rank:\n    needs: evalute\n");
        let found = Diagnostic::error(
            Code::UnknownNeed,
            Span::new(39, 46),
            "job `rank` needs `evalute`, which does not exist",
        )
        .label(Span::new(8, 16), "defined here")
        .did_you_mean(&["evaluate".to_owned()]);
        insta::assert_snapshot!(found.render(&source, Color::Never), @r"
        error[L012]: job `rank` needs `evalute`, which does not exist
         --> round.yml:4:12
          |
        2 |   evaluate: 1
          |   -------- defined here
        3 |   rank:
        4 |     needs: evalute
          |            ^^^^^^^
          |
          = help: did you mean `evaluate`?
        ");
        assert_eq!(found.to_json(&source)["line"], 4);
        assert_eq!(found.to_json(&source)["column"], 12);
    }
}
