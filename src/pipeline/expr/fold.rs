//! Comparing text without case, as the C# runner's ordinal-ignore-case does.
//!
//! One character at a time by simple upper-casing: `ß` stays `ß` (never `SS`) and the dotless `ı` stays itself.
//! [`str::to_uppercase`] does neither.

use std::cmp::Ordering;

/// The character's simple upper case.
fn upper(character: char) -> char {
    if character.is_ascii() {
        return character.to_ascii_uppercase();
    }
    let mut mapped = character.to_uppercase();
    match (mapped.next(), mapped.next()) {
        (Some(single), None) if character != 'ı' => single,
        _ => character,
    }
}

/// The text folded, so that two texts are equal without case exactly if their folded forms are equal.
pub(crate) fn fold(text: &str) -> String {
    text.chars().map(upper).collect()
}

/// Whether two texts are equal without case.
pub(crate) fn equal(left: &str, right: &str) -> bool {
    left.chars().map(upper).eq(right.chars().map(upper))
}

/// The order of two texts without case, by UTF-16 code units.
pub(crate) fn compare(left: &str, right: &str) -> Ordering {
    fold(left).encode_utf16().cmp(fold(right).encode_utf16())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_one_character_at_a_time() {
        let check = |left: &str, right: &str, expected: bool| {
            assert_eq!(equal(left, right), expected, "{left} {right}");
            assert_eq!(fold(left) == fold(right), expected, "{left} {right}");
        };
        check("Straße", "STRAßE", true);
        check("ß", "SS", false);
        check("ς", "Σ", true);
        check("ı", "I", false);
        check("Ü", "ü", true);
        assert_eq!(compare("b", "B"), Ordering::Equal);
        assert_eq!(compare("A", "["), Ordering::Less);
        assert_eq!(compare("\u{ffff}", "\u{10000}"), Ordering::Greater);
    }
}
