//! The paths that expressions name, such as `needs.evaluate.outputs.tps`.

use crate::pipeline::expr::{Term, TermKind};
use crate::pipeline::source::Span;

/// One name of a path; `None` for what is computed or a star.
pub(super) struct PathStep<'t> {
    pub(super) name: Option<&'t str>,
    pub(super) span: Span,
}

/// The path a term is, from its context on; `None` if it does not begin with a context.
pub(super) fn steps_of(term: &Term) -> Option<Vec<PathStep<'_>>> {
    let mut steps = Vec::new();
    let mut at = term;
    loop {
        let (of, name) = match &at.kind {
            TermKind::Context(name) => {
                steps.push(PathStep { name: Some(name), span: at.span });
                steps.reverse();
                return Some(steps);
            }
            TermKind::Property(of, name) => (of, Some(name.as_str())),
            TermKind::Star(of) => (of, None),
            TermKind::Index(of, index) => match &index.kind {
                TermKind::Literal(value) => (of, value.as_str()),
                _ => (of, None),
            },
            _ => return None,
        };
        let length = name.map_or(0, str::len);
        let span = match &at.kind {
            TermKind::Index(_, index) => index.span,
            _ => Span::new(at.span.end.saturating_sub(length), at.span.end),
        };
        steps.push(PathStep { name, span });
        at = of;
    }
}
