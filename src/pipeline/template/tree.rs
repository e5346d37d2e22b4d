//! Trees of templated scalars.

use super::Template;
use crate::pipeline::expr::{ExprError, Object, Scope, Value};
use crate::pipeline::source::{Source, Span};
use crate::pipeline::yaml::{Key, Kind, Node};

/// A tree of scalars that may contain expressions: what stands under `with`, `matrix` and their like.
#[derive(Debug, Clone, PartialEq)]
pub enum TemplateTree {
    /// A scalar.
    Scalar(Template),
    /// A list and its span.
    List(Vec<TemplateTree>, Span),
    /// A mapping and its span; keys are plain text.
    Map(Vec<(Key, TemplateTree)>, Span),
}

impl TemplateTree {
    /// Reads a node of a file.
    ///
    /// # Errors
    /// As [`Template::of_node`], for all scalars of the tree.
    pub fn of_node(source: &Source, node: &Node) -> Result<Self, Vec<ExprError>> {
        let mut errors = Vec::new();
        let tree = Self::read(source, node, &mut errors);
        if errors.is_empty() { Ok(tree) } else { Err(errors) }
    }

    fn read(source: &Source, node: &Node, errors: &mut Vec<ExprError>) -> Self {
        match &node.kind {
            Kind::Seq(items) => Self::List(
                items.iter().map(|item| Self::read(source, item, errors)).collect(),
                node.underlined(),
            ),
            Kind::Map(entries) => {
                let read = |(key, value): &(Key, Node)| (key.clone(), Self::read(source, value, errors));
                Self::Map(entries.iter().map(read).collect(), node.underlined())
            }
            _ => Self::Scalar(Template::of_node(source, node).unwrap_or_else(|found| {
                errors.extend(found);
                Template::literal(Value::Null, node.span)
            })),
        }
    }

    /// Where the tree stands in the file.
    pub fn span(&self) -> Span {
        match self {
            Self::Scalar(template) => template.span,
            Self::List(_, span) | Self::Map(_, span) => *span,
        }
    }

    /// All scalars of the tree.
    pub fn templates(&self) -> Vec<&Template> {
        match self {
            Self::Scalar(template) => vec![template],
            Self::List(items, _) => items.iter().flat_map(Self::templates).collect(),
            Self::Map(entries, _) => entries.iter().flat_map(|(_, value)| value.templates()).collect(),
        }
    }

    /// The value of the tree.
    ///
    /// # Errors
    /// As [`Template::evaluate`].
    pub fn evaluate(&self, scope: &dyn Scope) -> Result<Value, ExprError> {
        match self {
            Self::Scalar(template) => template.evaluate(scope),
            Self::List(items, _) => {
                let values: Result<Vec<_>, _> = items.iter().map(|item| item.evaluate(scope)).collect();
                values.map(Value::from)
            }
            Self::Map(entries, _) => {
                let values: Result<Object, _> = entries
                    .iter()
                    .map(|(key, value)| value.evaluate(scope).map(|value| (&key.name, value)))
                    .collect();
                values.map(Value::from)
            }
        }
    }
}
