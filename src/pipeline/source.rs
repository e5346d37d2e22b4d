//! A text with a name, and spans of it.
//!
//! Everything a diagnostic points at is a [`Span`] of bytes in one [`Source`]. Lines and columns are
//! computed only when something is shown.

use std::ops::Range;
use std::sync::Arc;

/// A half-open range of bytes in a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize)]
pub struct Span {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset one past the last byte.
    pub end: usize,
}

impl Span {
    /// The range from `start` to `end`; an `end` before `start` gives an empty span.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end: end.max(start) }
    }

    /// The empty span at one offset.
    pub fn at(offset: usize) -> Self {
        Self { start: offset, end: offset }
    }

    /// The smallest span that covers both.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// The span as a range, for slicing.
    pub fn range(self) -> Range<usize> {
        self.start..self.end
    }
}

/// A byte of a text as people count: both numbers from one, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct LineColumn {
    /// Number of the line, from one.
    pub line: usize,
    /// Number of the column in characters, from one.
    pub column: usize,
}

/// A file's text and the name it is shown under. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Source {
    /// The path as the user gave it.
    pub path: Arc<str>,
    /// The whole text.
    pub text: Arc<str>,
}

impl Source {
    /// A source of this path and text.
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: Arc::from(path), text: Arc::from(text) }
    }

    /// The line and column of a byte; a byte past the end is the end.
    pub fn line_column(&self, byte: usize) -> LineColumn {
        let before = &self.text[..self.floor(byte)];
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        LineColumn { line, column }
    }

    /// The whole lines under a span, without the last line's end.
    #[must_use]
    pub fn lines_around(&self, span: Span) -> Span {
        let span = self.clamp(span);
        let start = self.text[..span.start].rfind('\n').map_or(0, |end| end + 1);
        let end = self.text[span.end..].find('\n').map_or(self.text.len(), |length| span.end + length);
        Span { start, end }
    }

    /// The text under a span, clamped to the source.
    pub fn slice(&self, span: Span) -> &str {
        let span = self.clamp(span);
        &self.text[span.range()]
    }

    /// The span moved into the text and onto character boundaries.
    #[must_use]
    pub fn clamp(&self, span: Span) -> Span {
        let start = self.floor(span.start);
        let mut end = span.end.min(self.text.len()).max(start);
        while !self.text.is_char_boundary(end) {
            end += 1;
        }
        Span { start, end }
    }

    fn floor(&self, byte: usize) -> usize {
        let mut byte = byte.min(self.text.len());
        while !self.text.is_char_boundary(byte) {
            byte -= 1;
        }
        byte
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        let source = Source::new("a.yml", "é: 1\nb: 2\n");
        let check = |byte, line, column| {
            assert_eq!(source.line_column(byte), LineColumn { line, column }, "byte {byte}");
        };
        check(0, 1, 1);
        check(2, 1, 2);
        check(6, 2, 1);
        check(9, 2, 4);
        check(999, 3, 1);
    }
}
