//! From YAML text to a [`definition::Pipeline`], and from that to a [`plan::Plan`].
//!
//! The dialect is GitHub Actions'. Text becomes a tree with spans ([`yaml`]), the tree a checked pipeline with
//! every finding in one pass ([`definition::Pipeline::parse`], [`diagnostic`]), and that a [`plan`]. The language
//! between `${{` and `}}` is [`expr`], what it may look at [`contexts`]; what surrounds it is [`template`].
//!
//! Everything here is pure: no file is opened, no clock is read. Absent on purpose: running anything (see the
//! scheduler and the job), and knowing what stages do (the table in [`stage`] knows only their inputs and
//! outputs).

#![deny(clippy::disallowed_methods)]

pub mod code;
pub mod contexts;
pub mod cron;
pub mod definition;
pub mod diagnostic;
pub mod duration;
pub mod edit;
pub mod expr;
pub mod floor;
mod graph;
pub mod inputs;
mod known;
mod lint;
pub mod matrix;
pub mod parse;
pub mod plan;
pub mod runner;
pub mod scalar;
pub mod source;
pub mod stage;
pub mod suggest;
pub mod template;
pub mod yaml;

pub use definition::Pipeline;
pub use diagnostic::{Color, Diagnostic, Diagnostics, Label, Parsed, Severity};
pub use plan::Plan;
pub use runner::RunnerSpec;
pub use source::{Source, Span};

/// YAML text as a plain JSON value, for small data files in YAML.
///
/// # Errors
/// The findings, drawn over the text.
pub fn yaml_value(path: &str, text: &str) -> Result<serde_json::Value, String> {
    let source = Source::new(path, text);
    yaml::parse(&source)
        .map(|node| node.to_json())
        .map_err(|found| Diagnostics::new(&source, found).render(Color::Never))
}
