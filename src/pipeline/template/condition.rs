//! Conditions: what stands under `if`.

use super::{Form, Template, expression};
use crate::pipeline::expr::{ExprError, Scope, Status};
use crate::pipeline::scalar;
use crate::pipeline::source::{Source, Span};
use crate::pipeline::yaml::{Kind, Node};

/// An `if`: GitHub's rules, with `success()` put before what does not ask for a status itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    template: Template,
    asks_status: bool,
}

impl Default for Condition {
    /// The condition of what has no `if`: `success()`.
    fn default() -> Self {
        Self { template: Template::literal(true, Span::default()), asks_status: false }
    }
}

impl Condition {
    /// Reads text that stands in no file, with or without `${{ }}`; blank text is `success()`.
    ///
    /// # Errors
    /// As [`Template::parse`].
    pub fn parse(text: &str) -> Result<Self, Vec<ExprError>> {
        Self::read(text, Span::new(0, text.len()), &(0..=text.len()).collect::<Vec<_>>())
    }

    /// Reads a scalar of a file.
    ///
    /// # Errors
    /// As [`Template::of_node`].
    pub fn of_node(source: &Source, node: &Node) -> Result<Self, Vec<ExprError>> {
        match &node.kind {
            Kind::Str(text) => Self::read(text, node.span, &scalar::offsets(source, node.span, text)),
            Kind::Null => Ok(Self::default()),
            _ => Ok(Self { template: Template::of_node(source, node)?, asks_status: false }),
        }
    }

    fn read(text: &str, span: Span, offsets: &[usize]) -> Result<Self, Vec<ExprError>> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let template = if text.contains("${{") {
            Template::read(text, span, offsets)?
        } else {
            let placed = expression(text, offsets).map_err(|error| vec![error])?;
            Template { span, form: Form::Whole(placed) }
        };
        let asks_status = template.expressions().iter().any(|placed| placed.expression.asks_status());
        Ok(Self { template, asks_status })
    }

    /// The expression and what surrounds it.
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// Whether the condition calls a status function itself.
    pub fn asks_status(&self) -> bool {
        self.asks_status
    }

    /// Whether there is text beside the expression, which makes the condition always true.
    pub fn is_mixed(&self) -> bool {
        self.template.is_mixed()
    }

    /// Whether it holds. Where the scope has no status, nothing counts as failed.
    ///
    /// # Errors
    /// As [`Template::evaluate`].
    pub fn holds(&self, scope: &dyn Scope) -> Result<bool, ExprError> {
        if !self.asks_status && scope.status().is_some_and(|status| status != Status::Success) {
            return Ok(false);
        }
        self.template.evaluate(scope).map(|value| value.is_truthy())
    }
}
