//! Words and numbers as people read them, and strangers' text made harmless.

use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, LineStyle, Table, TableStyle};

/// Whether text may carry colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// No colour: the text goes to a file or a pipe, or the user said so.
    Plain,
    /// Colour by ANSI escapes.
    Ansi,
}

/// How text is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextStyle {
    /// Columns of the terminal; none where there is no terminal, and then nothing is wrapped.
    pub width: Option<u16>,
    /// Whether the text is coloured.
    pub paint: Paint,
}

impl TextStyle {
    /// The style for files, pipes and tests: no width, no colour.
    pub const PLAIN: Self = Self { width: None, paint: Paint::Plain };
}

/// Text of a stranger for a terminal: one line, without control characters and without the characters that
/// reorder or hide text.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => {
                if !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            character if character.is_control() || is_invisible(character) => {}
            character => out.push(character),
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// Characters that hide in text or turn its direction.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// [`plain`] text of at most `limit` characters; what is cut shows as `…`.
pub fn excerpt(text: &str, limit: usize) -> String {
    let text = plain(text);
    if text.chars().count() <= limit {
        return text;
    }
    text.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

/// An error and what lies beneath it, as one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    plain(&causes.map(ToString::to_string).collect::<Vec<_>>().join(": "))
}

/// A hotkey by its ends, `5Grwva…KutQY`: what miners compare by eye.
pub fn short_hotkey(hotkey: &str) -> String {
    let characters: Vec<char> = plain(hotkey).chars().collect();
    if characters.len() <= 14 {
        return characters.into_iter().collect();
    }
    let (start, end) = (&characters[..6], &characters[characters.len() - 5..]);
    start.iter().chain(&['…']).chain(end).collect()
}

/// Text of a stranger as Markdown prose: nothing in it is markup, a link or HTML. At most 600 characters.
pub fn markdown(text: &str) -> String {
    let mut out = String::new();
    let text = excerpt(text, 600);
    for (offset, character) in text.char_indices() {
        let is_markup = "\\`*_[]<>|&~#!$@".contains(character);
        let is_link = character == ':' && text[offset..].starts_with("://");
        let is_host = character == '.' && text[..offset].to_lowercase().ends_with("www");
        // Text may come to stand at the start of a line, where these would begin a list or a rule.
        let is_block = offset == 0 && "+-=".contains(character);
        if is_markup || is_link || is_host || is_block {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

/// A stranger's name as Markdown code, safe in a table's cell as well. At most 200 characters.
pub fn code(text: &str) -> String {
    let text = excerpt(text, 200).replace('`', "'").replace('|', "¦");
    if text.trim().is_empty() { "-".to_owned() } else { format!("`{text}`") }
}

/// A ratio as `1.84x`; `-` where there is none.
pub fn ratio(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}x"))
}

/// A measured value with four significant decimals at least; `-` where there is none.
pub fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value != 0.0 && value.abs() < 0.001 => format!("{value:.2e}"),
        Some(value) => format!("{value:.4}"),
    }
}

/// Nanoseconds in the unit that suits them; `-` where there are none.
pub fn duration(nanoseconds: Option<i64>) -> String {
    let Some(nanoseconds) = nanoseconds else { return "-".to_owned() };
    let seconds = nanoseconds as f64 / 1e9;
    match seconds.abs() {
        magnitude if magnitude < 0.001 => format!("{:.1} µs", seconds * 1e6),
        magnitude if magnitude < 1.0 => format!("{:.1} ms", seconds * 1e3),
        magnitude if magnitude < 120.0 => format!("{seconds:.1} s"),
        magnitude if magnitude < 7200.0 => format!("{:.1} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

/// A number of bytes in the unit that suits it: `40.1 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let (mut value, mut unit) = (count as f64 / 1024.0, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// An RFC 3339 instant without fractions of a second; other text stays as it is, made [`plain`].
pub fn instant(text: &str) -> String {
    match text.parse::<jiff::Timestamp>() {
        Ok(instant) => instant.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => excerpt(text, 40),
    }
}

/// The time between two RFC 3339 instants; `-` where one is missing.
pub fn between(start: Option<&str>, end: Option<&str>) -> String {
    let parse = |text: Option<&str>| text?.parse::<jiff::Timestamp>().ok();
    match (parse(start), parse(end)) {
        (Some(start), Some(end)) => duration(i64::try_from(end.duration_since(start).as_nanos()).ok()),
        _ => "-".to_owned(),
    }
}

/// An empty table in the house's look: a line under the header, and between rows if they have many lines.
pub(super) fn table(style: TextStyle, rows: RowLines) -> Table {
    let rule = LineStyle::none().fill('─').junction('─');
    let look = match rows {
        RowLines::One => TableStyle::new().header_separator(rule),
        RowLines::Many => TableStyle::new().header_separator(rule).row_separator(rule),
    };
    let mut table = Table::new();
    table.load_style(look).force_no_tty();
    match style.width {
        Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    if style.paint == Paint::Ansi {
        table.enforce_styling();
    }
    table
}

/// How many lines a row of a table may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowLines {
    /// A row has one line.
    One,
    /// A row may have several lines, so that rows need a line between them.
    Many,
}

/// A right-aligned cell.
pub(super) fn right(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// A cell in colour, where the table allows it.
pub(super) fn coloured(text: impl ToString, colour: Color) -> Cell {
    Cell::new(text).fg(colour)
}

/// The table without the spaces at its lines' ends, with an end of line.
pub(super) fn render(table: &Table) -> String {
    let mut out = String::new();
    for line in table.lines() {
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text() {
        let check = |input: &str, expected: &str| assert_eq!(plain(input), expected);
        check("plain é 日本", "plain é 日本");
        check("\u{1b}[31mred\u{1b}[0m", "[31mred[0m");
        check("a\r\nb\tc\n", "a b c");
        check("\u{9b}31m\u{7}\0x", "31mx");
        check("evil\u{202e}txt.exe\u{200b}\u{feff}\u{e0041}", "eviltxt.exe");
    }

    #[test]
    fn markdown_prose() {
        let check = |input: &str, expected: &str| assert_eq!(markdown(input), expected);
        check("3 of 8 failed (37.5 %)", "3 of 8 failed (37.5 %)");
        check("<script>alert(1)</script>", "\\<script\\>alert(1)\\</script\\>");
        check(
            "[x](https://evil) | **b** `c` &amp;",
            "\\[x\\](https\\://evil) \\| \\*\\*b\\*\\* \\`c\\` \\&amp;",
        );
        check("www.evil.example", "www\\.evil.example");
        check("# title\n- list", "\\# title - list");
        check("- list", "\\- list");
        check("\\|", "\\\\\\|");
    }

    #[test]
    fn markdown_code() {
        let check = |input: &str, expected: &str| assert_eq!(code(input), expected);
        check("ghcr.io/a/b", "`ghcr.io/a/b`");
        check("a`b|c\n<d>", "`a'b¦c <d>`");
        check("", "-");
        check("\u{1b}", "-");
    }

    #[test]
    fn numbers() {
        assert_eq!(short_hotkey("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"), "5Grwva…KutQY");
        assert_eq!(short_hotkey("5Grwva"), "5Grwva");
        assert_eq!(ratio(Some(1.8377)), "1.84x");
        assert_eq!(number(Some(0.000_012_3)), "1.23e-5");
        assert_eq!(number(Some(0.0)), "0.0000");
        let check = |nanoseconds: i64, expected: &str| assert_eq!(duration(Some(nanoseconds)), expected);
        check(950, "0.9 µs");
        check(12_345_678, "12.3 ms");
        check(61_000_000_000, "61.0 s");
        check(3_600_000_000_000, "60.0 min");
        let check = |count: u64, expected: &str| assert_eq!(bytes(count), expected);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1.0 KiB");
        check(42_000_000, "40.1 MiB");
        check(u64::MAX, "16384.0 PiB");
        assert_eq!(instant("2026-11-21T21:27:00.123Z"), "2026-11-21T21:27:00Z");
        assert_eq!(between(Some("2026-11-21T21:27:00Z"), Some("2026-11-21T21:28:30Z")), "90.0 s");
        assert_eq!(between(Some("x"), None), "-");
    }
}
