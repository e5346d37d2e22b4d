//! Text from sections of alternatives that name each other: what the generators of natural text are written in.
//!
//! How a section is written stands at the head of `material.txt`, which is the only one there is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::Rng as _;

/// Deepest nesting of sections; the material stays far below.
const MAX_DEPTH: usize = 12;

const SYLLABLES: [&str; 48] = [
    "ar", "ba", "bel", "bren", "cor", "da", "dor", "el", "fen", "fi", "gar", "gel", "ha", "hol", "il", "jas",
    "jo", "ka", "kes", "la", "lin", "lor", "ma", "mer", "mi", "mon", "na", "nel", "no", "or", "pa", "per",
    "qui", "ra", "ren", "ro", "sa", "sel", "sten", "ta", "thor", "ul", "va", "ver", "wen", "wil", "ya", "zo",
];

/// A piece of an alternative.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// A section, or the name of a person who does not exist, with the key under which it stays the same.
    Section {
        name: String,
        key: Option<String>,
        is_capital: bool,
    },
    Number {
        from: u32,
        to: u32,
        key: Option<String>,
    },
    OneOf(Vec<Vec<Part>>),
}

/// Sections of alternatives.
#[derive(Debug, Default)]
pub struct Material {
    sections: BTreeMap<String, Vec<Vec<Part>>>,
}

/// The material of this crate.
pub static MATERIAL: LazyLock<Material> = LazyLock::new(|| Material::read(include_str!("material.txt")));

impl Material {
    fn read(text: &str) -> Self {
        let mut material = Self::default();
        let mut section = String::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                name.clone_into(&mut section);
            } else {
                let line = line.replace("\\n", "\n");
                material.sections.entry(section.clone()).or_default().push(parts(&line));
            }
        }
        material
    }
}

/// Reads an alternative; `{{` and `}}` are braces.
fn parts(line: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let (mut text, mut rest) = (String::new(), line);
    while let Some(first) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("{{").or_else(|| rest.strip_prefix("}}")) {
            text.push(first);
            rest = after;
        } else if first == '{'
            && let Some(end) = closing(rest)
        {
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            parts.push(slot(&rest[1..end]));
            rest = &rest[end + 1..];
        } else {
            text.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    parts
}

/// Where the brace that opens the text is closed.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_u32;
    text.char_indices().find_map(|(at, letter)| {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        (depth == 0).then_some(at)
    })
}

/// Reads what stands between two braces.
fn slot(inner: &str) -> Part {
    let choices = split(inner);
    if choices.len() > 1 {
        return Part::OneOf(choices.into_iter().map(parts).collect());
    }
    let (name, key) = match inner.split_once(':') {
        Some((name, key)) => (name, Some(key.to_owned())),
        None => (inner, None),
    };
    if let Some((from, to)) = name.strip_prefix('#').and_then(|range| range.split_once('-'))
        && let (Ok(from), Ok(to)) = (from.parse(), to.parse())
    {
        return Part::Number { from, to, key };
    }
    let is_capital = name.starts_with(|letter: char| letter.is_ascii_uppercase());
    let mut name = name.to_owned();
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    Part::Section { name, key, is_capital }
}

/// Splits at the bars that stand in no inner braces.
fn split(inner: &str) -> Vec<&str> {
    let (mut found, mut from, mut depth) = (Vec::new(), 0, 0_u32);
    for (at, letter) in inner.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => {
                found.push(&inner[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    found.push(&inner[from..]);
    found
}

/// Writes one text: what has a key stays the same in it.
pub struct Writer<'r> {
    material: &'static Material,
    generator: &'r mut ChaCha12Rng,
    bound: BTreeMap<String, String>,
    used: BTreeSet<(String, usize)>,
    /// The alternatives of whole sentences that were taken: the shape of the text, without its words.
    pub shape: Vec<(String, usize)>,
}

impl<'r> Writer<'r> {
    /// A text that is not begun.
    pub fn new(generator: &'r mut ChaCha12Rng) -> Self {
        let (bound, used) = (BTreeMap::new(), BTreeSet::new());
        Self { material: &MATERIAL, generator, bound, used, shape: Vec::new() }
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        // Multiply-shift: the bias is below 2^-18 for these bounds.
        ((u64::from(self.generator.next_u32()) * bound as u64) >> 32) as usize
    }

    /// A sentence of a section: one that this text does not have yet, while there are such.
    pub fn sentence(&mut self, section: &str) -> String {
        let count = self.material.sections.get(section).map_or(0, Vec::len);
        let mut pick = self.below(count.max(1));
        for _ in 0..count {
            if self.used.insert((section.to_owned(), pick)) {
                break;
            }
            pick = (pick + 1) % count;
        }
        self.shape.push((section.to_owned(), pick));
        let mut text = String::new();
        self.alternative((section, pick), &mut text, 0);
        with_articles(&text)
    }

    /// A word or phrase of a section.
    pub fn phrase(&mut self, section: &str) -> String {
        let mut text = String::new();
        self.section(section, &mut text, 0);
        with_articles(&text)
    }

    fn section(&mut self, name: &str, text: &mut String, depth: usize) {
        if name == "name" {
            let name = self.name();
            text.push_str(&name);
        } else if let Some(count) = self.material.sections.get(name).map(Vec::len) {
            let pick = self.below(count);
            self.alternative((name, pick), text, depth);
        }
    }

    fn alternative(&mut self, (name, pick): (&str, usize), text: &mut String, depth: usize) {
        let material = self.material;
        if let Some(parts) = material.sections.get(name).and_then(|all| all.get(pick))
            && depth < MAX_DEPTH
        {
            self.parts(parts, text, depth + 1);
        }
    }

    fn parts(&mut self, parts: &[Part], text: &mut String, depth: usize) {
        for part in parts {
            match part {
                Part::Text(words) => text.push_str(words),
                Part::OneOf(choices) => {
                    let pick = self.below(choices.len());
                    self.parts(&choices[pick], text, depth);
                }
                Part::Number { from, to, key } => {
                    let bound = key.as_ref().map(|key| format!("#{key}"));
                    let number = self.kept(bound, |writer| {
                        let span = to.saturating_sub(*from) as usize + 1;
                        (from + writer.below(span) as u32).to_string()
                    });
                    text.push_str(&number);
                }
                Part::Section { name, key, is_capital } => {
                    let bound = key.as_ref().map(|key| format!("{name}:{key}"));
                    let words = self.kept(bound, |writer| {
                        let mut words = String::new();
                        writer.section(name, &mut words, depth);
                        words
                    });
                    let starts = text.is_empty() || *is_capital;
                    text.push_str(&if starts { capital(&words) } else { words });
                }
            }
        }
    }

    /// What stands under a key, made where nothing does yet.
    fn kept(&mut self, key: Option<String>, make: impl FnOnce(&mut Self) -> String) -> String {
        let Some(key) = key else { return make(self) };
        if let Some(words) = self.bound.get(&key) {
            return words.clone();
        }
        let words = make(self);
        self.bound.insert(key, words.clone());
        words
    }

    fn name(&mut self) -> String {
        let count = 2 + self.below(2);
        let text: String = (0..count).map(|_| SYLLABLES[self.below(SYLLABLES.len())]).collect();
        capital(&text)
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// `a` becomes `an` before a vowel.
fn with_articles(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut words = text.split(' ').peekable();
    while let Some(word) = words.next() {
        let bare = word.trim_start_matches(|letter: char| !letter.is_ascii_alphabetic());
        let has_vowel = |next: &&str| {
            next.starts_with(['a', 'e', 'i', 'o', 'A', 'E', 'I', 'O', 'u', 'U']) && !next.starts_with("uni")
        };
        out.push_str(word);
        if (bare == "a" || bare == "A") && words.peek().is_some_and(has_vowel) {
            out.push('n');
        }
        if words.peek().is_some() {
            out.push(' ');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng as _;

    use super::*;

    fn named(parts: &[Part], found: &mut Vec<String>) {
        for part in parts {
            match part {
                Part::Section { name, .. } => found.push(name.clone()),
                Part::OneOf(choices) => choices.iter().for_each(|choice| named(choice, found)),
                Part::Text(_) | Part::Number { .. } => {}
            }
        }
    }

    fn depth(section: &str) -> usize {
        let mut found = Vec::new();
        MATERIAL.sections.get(section).into_iter().flatten().for_each(|parts| named(parts, &mut found));
        1 + found.iter().map(|inner| depth(inner)).max().unwrap_or(0)
    }

    #[test]
    fn the_material_is_whole() {
        for (section, alternatives) in &MATERIAL.sections {
            let mut found = Vec::new();
            for parts in alternatives {
                named(parts, &mut found);
            }
            for name in found {
                assert!(name == "name" || MATERIAL.sections.contains_key(&name), "`{name}` in `{section}`");
            }
            assert!(depth(section) < MAX_DEPTH, "{section}");
        }
    }

    #[test]
    fn texts_are_read_as_they_are_written() {
        let check = |line: &str, expected: &[Part]| assert_eq!(parts(line), expected, "{line}");
        let text = |words: &str| Part::Text(words.to_owned());
        let section = |name: &str, key: Option<&str>, is_capital| Part::Section {
            name: name.to_owned(),
            key: key.map(ToOwned::to_owned),
            is_capital,
        };
        check("a {{b}}", &[text("a {b}")]);
        check(
            "{When}, {town:a}",
            &[section("when", None, true), text(", "), section("town", Some("a"), false)],
        );
        check("{#2-9}", &[Part::Number { from: 2, to: 9, key: None }]);
        check(
            "{x|the {day}}",
            &[Part::OneOf(vec![vec![text("x")], vec![text("the "), section("day", None, false)]])],
        );
        assert_eq!(with_articles("A owl and a bee, \"a apple\" a"), "An owl and a bee, \"an apple\" a");
    }

    #[test]
    fn what_has_a_key_stays_the_same_in_a_text() {
        let mut generator = ChaCha12Rng::seed_from_u64(1);
        let mut writer = Writer::new(&mut generator);
        let parts = parts("{person:x} {#1-9999:x} {person:x} {#1-9999:x}");
        let mut text = String::new();
        writer.parts(&parts, &mut text, 0);
        let half = text.len() / 2;
        assert_eq!(text[..half], text[half + 1..]);
        let sentences: BTreeSet<String> = (0..13).map(|_| writer.sentence("bridge")).collect();
        assert_eq!(sentences.len(), 13);
    }
}
