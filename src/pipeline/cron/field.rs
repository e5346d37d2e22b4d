//! One field of a cron line: text to a set of bits.
//!
//! A field is a list of items; an item is `*`, a value or a range, and may have a step. A value with a step is the
//! range from it to the greatest value.

use crate::pipeline::source::Span;

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldFault {
    /// Nothing stands before, between or after commas.
    #[error("empty list item")]
    EmptyItem,
    /// A value is neither a number nor a name.
    #[error("'{text:.40}' is not a number{}{}", if *has_names { " or a three-letter name" } else { "" }, hint(text))]
    NotAValue {
        /// What was written.
        text: String,
        /// Whether the field has names.
        has_names: bool,
    },
    /// A number is none that the field can have.
    #[error("{value:.40} is out of range {least}-{most}")]
    OutOfRange {
        /// The number as written.
        value: String,
        /// The least value of the field.
        least: u32,
        /// The greatest value of the field.
        most: u32,
    },
    /// A range ends before it begins.
    #[error("range {range:.40} runs backwards; write `{instead:.80}`")]
    Backwards {
        /// The range as written.
        range: String,
        /// What probably was meant.
        instead: String,
    },
    /// A range lacks an end, has too many, or has `*` for one.
    #[error("'{text:.40}' is not a range; write two values with one `-` between them")]
    NotARange {
        /// What was written.
        text: String,
    },
    /// A step is no number from one on.
    #[error("step must be a positive integer, not '{text:.40}'")]
    Step {
        /// What was written.
        text: String,
    },
    /// A step stands after nothing.
    #[error("the step '/{step:.40}' has no range before it; write `*/{step:.40}`")]
    StepOfNothing {
        /// The step as written.
        step: String,
    },
}

/// What to write in place of an extension of other crons.
fn hint(text: &str) -> &'static str {
    let rest = text.trim_start_matches(|character: char| character.is_ascii_digit());
    match rest {
        "?" => "; write `*`",
        "L" | "W" | "LW" | "l" | "w" | "lw" => "; `L` and `W` are not supported",
        _ if rest.starts_with('#') => "; `#` is not supported",
        _ => "",
    }
}

/// A kind of field: its name in messages, its values, and their names.
pub(super) struct Field {
    pub(super) name: &'static str,
    least: u32,
    most: u32,
    /// Names of the values from the least on.
    words: &'static [&'static str],
}

pub(super) const MINUTE: Field = Field { name: "minute", least: 0, most: 59, words: &[] };
pub(super) const HOUR: Field = Field { name: "hour", least: 0, most: 23, words: &[] };
pub(super) const DAY: Field = Field { name: "day of month", least: 1, most: 31, words: &[] };
pub(super) const MONTH: Field = Field {
    name: "month",
    least: 1,
    most: 12,
    words: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
/// Sunday is 0 and 7.
pub(super) const WEEKDAY: Field = Field {
    name: "day of week",
    least: 0,
    most: 7,
    words: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

/// A fault and where it is, in bytes of the field.
type Fault = (FieldFault, Span);

/// A part of a field and the byte it begins at.
#[derive(Clone, Copy)]
struct Part<'t> {
    text: &'t str,
    start: usize,
}

impl Part<'_> {
    /// What stands before and after the first such character.
    fn split_once(self, at: char) -> Option<(Self, Self)> {
        let (before, after) = self.text.split_once(at)?;
        let start = self.start + before.len() + at.len_utf8();
        Some((Part { text: before, ..self }, Part { text: after, start }))
    }

    fn fault(self, fault: impl FnOnce(String) -> FieldFault) -> Fault {
        (fault(self.text.to_owned()), Span::new(self.start, self.start + self.text.len()))
    }
}

impl Field {
    /// The values that a field's text names, as bits.
    pub(super) fn read(&self, text: &str) -> Result<u64, Fault> {
        let mut bits = 0;
        let mut start = 0;
        for item in text.split(',') {
            if item.is_empty() {
                // The comma that makes it empty is what can be pointed at.
                let comma = start.min(text.len().saturating_sub(1));
                return Err((FieldFault::EmptyItem, Span::new(comma, comma + 1)));
            }
            bits |= self.item(Part { text: item, start })?;
            start += item.len() + 1;
        }
        Ok(bits)
    }

    fn item(&self, item: Part<'_>) -> Result<u64, Fault> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) if range.text.is_empty() => {
                return Err(item.fault(|_| FieldFault::StepOfNothing { step: step.text.to_owned() }));
            }
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range.text == "*" => (self.least, self.most),
            Some((from, to)) => self.range(range, from, to)?,
            None => {
                let value = self.value(range)?;
                (value, if step.is_some() { self.most } else { value })
            }
        };
        let step = step.map_or(Ok(1), positive)?;
        Ok((from..=to).step_by(step).fold(0, |bits, value| bits | 1 << value))
    }

    fn range(&self, whole: Part<'_>, from: Part<'_>, to: Part<'_>) -> Result<(u32, u32), Fault> {
        let is_end = |end: Part<'_>| !end.text.is_empty() && end.text != "*" && !end.text.contains('-');
        if !is_end(from) || !is_end(to) {
            return Err(whole.fault(|text| FieldFault::NotARange { text }));
        }
        let (first, last) = (self.value(from)?, self.value(to)?);
        if first <= last {
            return Ok((first, last));
        }
        let is_weekday = !self.words.is_empty() && self.least == 0;
        let instead = match (is_weekday, last) {
            (true, 0) => format!("{first}-7"),
            (true, _) => format!("{first}-7,1-{last}"),
            _ => format!("{first}-{},{}-{last}", self.most, self.least),
        };
        Err(whole.fault(|range| FieldFault::Backwards { range, instead }))
    }

    fn value(&self, part: Part<'_>) -> Result<u32, Fault> {
        let word = self.words.iter().position(|word| word.eq_ignore_ascii_case(part.text));
        if let Some(position) = word {
            return Ok(position as u32 + self.least);
        }
        if part.text.is_empty() || !part.text.bytes().all(|byte| byte.is_ascii_digit()) {
            let has_names = !self.words.is_empty();
            return Err(part.fault(|text| FieldFault::NotAValue { text, has_names }));
        }
        // A number too large for its type is too large for the field.
        let value = part.text.parse().ok().filter(|value| (self.least..=self.most).contains(value));
        value.ok_or_else(|| {
            part.fault(|value| FieldFault::OutOfRange { value, least: self.least, most: self.most })
        })
    }
}

/// The number of a step. One that is larger than its range is taken, as Vixie's cron does: the first value alone fires.
fn positive(step: Part<'_>) -> Result<usize, Fault> {
    let is_number = !step.text.is_empty() && step.text.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| step.text.parse::<u32>().map_or(usize::MAX, |step| step as usize));
    number.filter(|step| *step > 0).ok_or_else(|| {
        let mut fault = step.fault(|text| FieldFault::Step { text });
        // The stroke belongs to it, so that a step that is missing can be pointed at.
        fault.1.start = fault.1.start.saturating_sub(1);
        fault
    })
}
