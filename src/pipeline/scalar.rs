//! Which byte of the source each byte of a scalar's text came from.
//!
//! YAML escapes, doubles quotes, folds lines and strips indentation, so that an expression's column inside a
//! scalar is not its column in the file. The text is walked beside its source; where they part for a reason
//! that is not known, the rest maps to the scalar's end.

use super::source::{Source, Span};

/// For each byte of `text`, and for its end, the byte of the source it came from.
pub fn offsets(source: &Source, span: Span, text: &str) -> Vec<usize> {
    let span = source.clamp(span);
    let mut walk = Walk { raw: source.slice(span), at: 0, style: Style::Plain };
    match walk.raw.chars().next() {
        Some('\'') => walk.style = Style::Single,
        Some('"') => walk.style = Style::Double,
        _ => {}
    }
    walk.at = usize::from(walk.style != Style::Plain);
    let mut places = Vec::with_capacity(text.len() + 1);
    for character in text.chars() {
        let from = walk.next(character);
        places.extend(std::iter::repeat_n(span.start + from, character.len_utf8()));
    }
    places.push(span.start + walk.at);
    places
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Single,
    Double,
}

struct Walk<'s> {
    raw: &'s str,
    at: usize,
    style: Style,
}

impl Walk<'_> {
    fn peek(&self) -> Option<char> {
        self.raw[self.at..].chars().next()
    }

    /// Moves over what `wanted` was written as, and says where that began.
    fn next(&mut self, wanted: char) -> usize {
        if self.style == Style::Double
            && let Some(length) = self.escape()
        {
            let from = self.at;
            self.at += length;
            return from;
        }
        if self.peek() != Some(wanted) {
            self.skip_blank(wanted);
        }
        let from = self.at;
        match self.peek() {
            Some('\'') if self.style == Style::Single && wanted == '\'' => {
                self.at += if self.raw[from..].starts_with("''") { 2 } else { 1 };
            }
            Some(found) if found == wanted => self.at += found.len_utf8(),
            Some(found) if found.is_whitespace() && wanted.is_whitespace() => self.at += found.len_utf8(),
            // A line end that the span does not cover, such as blank lines before a block's first.
            Some(_) if wanted.is_whitespace() => {}
            _ => self.at = self.raw.len(),
        }
        from
    }

    /// Moves over indentation and folded line ends that the text does not have.
    fn skip_blank(&mut self, wanted: char) {
        let rest = &self.raw[self.at..];
        let skipped = rest.len() - rest.trim_start().len();
        if wanted.is_whitespace() {
            return;
        }
        self.at += skipped;
    }

    /// The length of the escape that stands here, if one does.
    fn escape(&mut self) -> Option<usize> {
        loop {
            let mut characters = self.raw[self.at..].chars();
            if characters.next() != Some('\\') {
                return None;
            }
            let kind = characters.next()?;
            if kind == '\n' || kind == '\r' {
                self.at += 1;
                let rest = &self.raw[self.at..];
                self.at += rest.len() - rest.trim_start().len();
                continue;
            }
            let digits = match kind {
                'x' => 2,
                'u' => 4,
                'U' => 8,
                _ => 0,
            };
            return Some((1 + kind.len_utf8() + digits).min(self.raw.len() - self.at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::yaml::{self, Kind};
    use proptest::prelude::*;

    /// Checks that a mark maps back to itself: `yaml` is a mapping of one key, and `mark` is looked for in its value.
    fn check(yaml: &str, mark: &str) {
        let source = Source::new("t.yml", yaml);
        let Kind::Map(entries) = yaml::parse(&source).unwrap().kind else { panic!("a mapping") };
        let Kind::Str(text) = &entries[0].1.kind else { panic!("a string in {yaml}") };
        let places = offsets(&source, entries[0].1.span, text);
        let at = text.find(mark).unwrap();
        let found = &source.text[places[at]..places[at + mark.len()]];
        assert_eq!(found, mark, "{yaml}");
    }

    #[test]
    fn expressions_are_found_in_every_style() {
        check("a: x ${{ b }} y\n", "${{ b }}");
        check("a: 'it''s ${{ b }} y'\n", "${{ b }}");
        check("a: \"\\t\\u00e9 ${{ b }} y\"\n", "${{ b }}");
        check("a: \"é\\\n    tail ${{ b }} y\"\n", "${{ b }}");
        check("a: |\n  echo\n    two ${{ b }}\n  three\n", "${{ b }}");
        check("a: >-\n  folded\n  text ${{ b }}\n\n  three\n", "${{ b }}");
        check("a: multi\n  line ${{ b }}\n  plain\n", "${{ b }}");
        check("a: 'multi\n\n  line ${{ b }}'\n", "${{ b }}");
        check("a: |\n\n\n  late ${{ b }}\n", "${{ b }}");
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>(), raw in any::<String>(), start in 0..50usize, len in 0..50usize) {
            let source = Source::new("t.yml", &raw);
            let places = offsets(&source, Span::new(start, start + len), &text);
            prop_assert_eq!(places.len(), text.len() + 1);
            prop_assert!(places.iter().all(|place| *place <= raw.len()));
        }
    }
}
