//! What is wrong with a machine or a data directory, and the command that mends it.
//!
//! Facts in, findings out ([`checks`], [`rounds`]), findings to text or JSON here. Gathering the facts is
//! `adapters::doctor`'s business.

pub mod checks;
pub mod rounds;

use std::fmt::Write as _;

use serde::Serialize;

use super::query_output::{JsonLayout, json};
use super::text::{Paint, TextStyle, excerpt};

/// How bad a finding is, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Good to know.
    Note,
    /// Works, and may not for long or not for all.
    Warning,
    /// Does not work.
    Problem,
}

impl Severity {
    /// The word used in text and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }

    /// Number of the word's colour in an ANSI escape: green, cyan, yellow, red.
    const fn colour(self) -> u8 {
        match self {
            Self::Ok => 32,
            Self::Note => 36,
            Self::Warning => 33,
            Self::Problem => 31,
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the check.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, one line.
    pub found: String,
    /// What mends it: a command, or what to do; none where nothing is to be done.
    pub mend: Option<String>,
}

impl Finding {
    /// A finding that needs no mending.
    pub fn new(check: &'static str, severity: Severity, found: impl Into<String>) -> Self {
        Self { check, severity, found: found.into(), mend: None }
    }

    /// With what mends it.
    #[must_use]
    pub fn mend(self, mend: impl Into<String>) -> Self {
        Self { mend: Some(mend.into()), ..self }
    }
}

/// A path or other text as one word of a shell command, whatever is in it.
pub fn shell_word(text: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/._-+=:@%,".contains(character);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(is_plain) {
        return text.to_owned();
    }
    // A dash at the start would be an option.
    let start = if text.starts_with('-') { "./" } else { "" };
    format!("'{start}{}'", text.replace('\'', "'\\''"))
}

/// The worst of all findings; ok where there is none.
pub fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
}

/// A line a finding, and a line `mend:` below those that have one.
pub fn findings_text(findings: &[Finding], style: TextStyle) -> String {
    let mut out = String::new();
    for finding in findings {
        let word = format!("{:<8}", finding.severity.as_str());
        let word = match style.paint {
            Paint::Plain => word,
            Paint::Ansi => format!("\u{1b}[{}m{word}\u{1b}[0m", finding.severity.colour()),
        };
        let found = excerpt(&finding.found, 400);
        writeln!(out, "{word} {:<10} {found}", finding.check).expect("writes to a string");
        if let Some(mend) = &finding.mend {
            writeln!(out, "{:19} mend: {}", "", excerpt(mend, 400)).expect("writes to a string");
        }
    }
    out
}

#[derive(Serialize)]
struct FindingsJson<'a> {
    worst: Severity,
    findings: &'a [Finding],
}

/// The findings as a JSON object.
pub fn findings_json(findings: &[Finding]) -> String {
    json(&FindingsJson { worst: worst(findings), findings }, JsonLayout::Pretty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_command() {
        let check = |text: &str, expected: &str| assert_eq!(shell_word(text), expected);
        check("data/.part-x", "data/.part-x");
        check("a b; rm -rf ~", "'a b; rm -rf ~'");
        check("it's", "'it'\\''s'");
        check("-rf", "'./-rf'");
        check("$(id)", "'$(id)'");
        check("", "''");
    }

    #[test]
    fn findings() {
        let findings = [
            Finding::new("data", Severity::Ok, "`data` can be written to"),
            Finding::new("rounds", Severity::Warning, "round `a` is not\nfinished").mend("cacheon resume a"),
        ];
        insta::assert_snapshot!("findings", findings_text(&findings, TextStyle::PLAIN));
        insta::assert_snapshot!("findings_json", findings_json(&findings));
        let colour = TextStyle { width: None, paint: Paint::Ansi };
        assert!(findings_text(&findings, colour).starts_with("\u{1b}[32mok      \u{1b}[0m data"));
        assert_eq!((worst(&findings), worst(&[])), (Severity::Warning, Severity::Ok));
    }
}
