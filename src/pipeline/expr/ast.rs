//! Expression text -> tree.
//!
//! Precedence climbing over the tokens. Chains of `&&` and of `||` are one node, as in GitHub's parser, so that
//! they do not count against the depth limit.

use super::error::{ExprError, ExprFault};
use super::functions::Function;
use super::lexer::{self, Operator, Spanned, Token};
use super::value::Value;
use crate::pipeline::source::Span;

/// The longest expression, in UTF-16 code units.
pub const MAX_LENGTH: usize = 21_000;
/// The deepest expression, in nodes.
pub const MAX_DEPTH: usize = 50;
const MAX_PARENTHESES: usize = 200;

/// A part of an expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// What it is.
    pub kind: TermKind,
    /// Its bytes in the expression's text.
    pub span: Span,
    depth: usize,
}

/// What a part of an expression is.
#[derive(Debug, Clone, PartialEq)]
pub enum TermKind {
    /// A constant.
    Literal(Value),
    /// A context by name.
    Context(String),
    /// `left.name`.
    Property(Box<Term>, String),
    /// `left[index]`.
    Index(Box<Term>, Box<Term>),
    /// `left.*`.
    Star(Box<Term>),
    /// `!term`.
    Not(Box<Term>),
    /// `a && b && ..`.
    And(Vec<Term>),
    /// `a || b || ..`.
    Or(Vec<Term>),
    /// Two values compared.
    Compare(Box<Term>, Comparison, Box<Term>),
    /// A function's result.
    Call(Function, Vec<Term>),
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the words for the operators")]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Term {
    /// The parts directly inside this one, in their order.
    pub fn parts(&self) -> Vec<&Self> {
        match &self.kind {
            TermKind::Literal(_) | TermKind::Context(_) => Vec::new(),
            TermKind::Property(of, _) | TermKind::Star(of) | TermKind::Not(of) => vec![of],
            TermKind::Index(of, index) => vec![of, index],
            TermKind::Compare(left, _, right) => vec![left, right],
            TermKind::And(terms) | TermKind::Or(terms) | TermKind::Call(_, terms) => terms.iter().collect(),
        }
    }

    /// Visits this part and all inside it, outermost first.
    pub fn walk<'t>(&'t self, visit: &mut impl FnMut(&'t Self)) {
        visit(self);
        for part in self.parts() {
            part.walk(visit);
        }
    }
}

/// Reads an expression; an empty one is null.
pub(crate) fn parse(text: &str) -> Result<Term, ExprError> {
    if text.encode_utf16().count() > MAX_LENGTH {
        return Err(ExprError::new(ExprFault::TooLong, Span::new(0, text.len())));
    }
    let tokens = lexer::tokens(text)?;
    if tokens.is_empty() {
        return Ok(Term { kind: TermKind::Literal(Value::Null), span: Span::new(0, text.len()), depth: 1 });
    }
    let mut parser = Parser { tokens, next: 0, end: text.trim_end().len(), open: 0 };
    let term = parser.expression(1)?;
    match parser.take() {
        None => Ok(term),
        Some((token, span)) => Err(unexpected(&token, span)),
    }
}

struct Parser {
    tokens: Vec<Spanned>,
    next: usize,
    end: usize,
    open: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(token, _)| token)
    }

    fn take(&mut self) -> Option<Spanned> {
        let token = self.tokens.get(self.next).cloned();
        self.next += usize::from(token.is_some());
        token
    }

    fn expect(&mut self, wanted: &Token) -> Result<Span, ExprError> {
        match self.take() {
            Some((token, span)) if token == *wanted => Ok(span),
            Some((token, span)) => Err(unexpected(&token, span)),
            None => Err(self.unexpected_end()),
        }
    }

    fn unexpected_end(&self) -> ExprError {
        ExprError::new(ExprFault::UnexpectedEnd, Span::new(self.end.saturating_sub(1), self.end))
    }

    fn expression(&mut self, least: u8) -> Result<Term, ExprError> {
        let mut left = self.unary()?;
        while let Some(Token::Operator(operator)) = self.peek() {
            let operator = *operator;
            if operator.precedence() < least {
                break;
            }
            self.next += 1;
            let right = self.expression(operator.precedence() + 1)?;
            left = join(left, operator, right)?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Term, ExprError> {
        let mut bangs = Vec::new();
        while let Some(Token::Not) = self.peek() {
            bangs.extend(self.take().map(|(_, span)| span));
        }
        let mut term = self.postfix()?;
        for bang in bangs.into_iter().rev() {
            let span = bang.to(term.span);
            term = node(TermKind::Not(Box::new(term)), span)?;
        }
        Ok(term)
    }

    fn postfix(&mut self) -> Result<Term, ExprError> {
        let mut term = self.primary()?;
        loop {
            let start = term.span;
            match self.peek() {
                Some(Token::Dot) => {
                    self.next += 1;
                    term = match self.take() {
                        Some((Token::Property(name), span)) => {
                            node(TermKind::Property(Box::new(term), name), start.to(span))?
                        }
                        Some((Token::Star, span)) => node(TermKind::Star(Box::new(term)), start.to(span))?,
                        Some((token, span)) => return Err(unexpected(&token, span)),
                        None => return Err(self.unexpected_end()),
                    };
                }
                Some(Token::OpenIndex) => {
                    self.next += 1;
                    if let Some(Token::Star) = self.peek() {
                        self.next += 1;
                        let end = self.expect(&Token::CloseIndex)?;
                        term = node(TermKind::Star(Box::new(term)), start.to(end))?;
                    } else {
                        let index = self.nested()?;
                        let end = self.expect(&Token::CloseIndex)?;
                        term = node(TermKind::Index(Box::new(term), Box::new(index)), start.to(end))?;
                    }
                }
                _ => return Ok(term),
            }
        }
    }

    fn primary(&mut self) -> Result<Term, ExprError> {
        match self.take() {
            Some((Token::Literal(value), span)) => node(TermKind::Literal(value), span),
            Some((Token::Open, open)) => {
                let mut inner = self.nested()?;
                inner.span = open.to(self.expect(&Token::Close)?);
                Ok(inner)
            }
            Some((Token::Name(name), span)) if self.peek() == Some(&Token::Open) => self.call(&name, span),
            Some((Token::Name(name), span)) => node(TermKind::Context(name), span),
            Some((token, span)) => Err(unexpected(&token, span)),
            None => Err(self.unexpected_end()),
        }
    }

    fn call(&mut self, name: &str, span: Span) -> Result<Term, ExprError> {
        let Some(function) = Function::named(name) else {
            let known = super::suggest(name, Function::ALL.iter().map(|function| function.name()));
            return Err(ExprError::new(ExprFault::UnknownFunction { name: name.to_owned(), known }, span));
        };
        self.next += 1;
        let mut arguments = Vec::new();
        if self.peek() != Some(&Token::Close) {
            arguments.push(self.nested()?);
            while self.peek() == Some(&Token::Comma) {
                self.next += 1;
                arguments.push(self.nested()?);
            }
        }
        let span = span.to(self.expect(&Token::Close)?);
        function.check_arity(arguments.len()).map_err(|fault| ExprError::new(fault, span))?;
        node(TermKind::Call(function, arguments), span)
    }

    /// An expression inside brackets, of which only so many may be open at once.
    fn nested(&mut self) -> Result<Term, ExprError> {
        self.open += 1;
        if self.open > MAX_PARENTHESES {
            return Err(ExprError::new(ExprFault::TooDeep, Span::new(0, self.end)));
        }
        let term = self.expression(1)?;
        self.open -= 1;
        Ok(term)
    }
}

fn join(left: Term, operator: Operator, right: Term) -> Result<Term, ExprError> {
    let span = left.span.to(right.span);
    let chain = |left: Term, right: Term, same: fn(TermKind) -> Result<Vec<Term>, TermKind>| {
        let Term { kind, span, depth } = left;
        match same(kind) {
            Ok(mut terms) => {
                terms.push(right);
                terms
            }
            Err(kind) => vec![Term { kind, span, depth }, right],
        }
    };
    let compare = |left, comparison, right| TermKind::Compare(Box::new(left), comparison, Box::new(right));
    let kind = match operator {
        Operator::And => TermKind::And(chain(left, right, |kind| match kind {
            TermKind::And(terms) => Ok(terms),
            other => Err(other),
        })),
        Operator::Or => TermKind::Or(chain(left, right, |kind| match kind {
            TermKind::Or(terms) => Ok(terms),
            other => Err(other),
        })),
        Operator::Equal => compare(left, Comparison::Equal, right),
        Operator::NotEqual => compare(left, Comparison::NotEqual, right),
        Operator::Less => compare(left, Comparison::Less, right),
        Operator::LessOrEqual => compare(left, Comparison::LessOrEqual, right),
        Operator::Greater => compare(left, Comparison::Greater, right),
        Operator::GreaterOrEqual => compare(left, Comparison::GreaterOrEqual, right),
    };
    node(kind, span)
}

fn node(kind: TermKind, span: Span) -> Result<Term, ExprError> {
    let mut term = Term { kind, span, depth: 1 };
    term.depth += term.parts().iter().map(|part| part.depth).max().unwrap_or(0);
    if term.depth > MAX_DEPTH {
        return Err(ExprError::new(ExprFault::TooDeep, span));
    }
    Ok(term)
}

fn unexpected(token: &Token, span: Span) -> ExprError {
    let symbol = match token {
        Token::Literal(value) => value.to_string(),
        Token::Name(name) | Token::Property(name) => name.clone(),
        Token::Star => "*".to_owned(),
        Token::Dot => ".".to_owned(),
        Token::Open => "(".to_owned(),
        Token::Close => ")".to_owned(),
        Token::OpenIndex => "[".to_owned(),
        Token::CloseIndex => "]".to_owned(),
        Token::Comma => ",".to_owned(),
        Token::Not => "!".to_owned(),
        Token::Operator(operator) => match operator {
            Operator::Or => "||",
            Operator::And => "&&",
            Operator::Equal => "==",
            Operator::NotEqual => "!=",
            Operator::Less => "<",
            Operator::LessOrEqual => "<=",
            Operator::Greater => ">",
            Operator::GreaterOrEqual => ">=",
        }
        .to_owned(),
    };
    ExprError::new(ExprFault::UnexpectedToken { symbol }, span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: Result<usize, (&str, usize)>) {
        let found = parse(text).map(|term| term.depth);
        let expected = expected.map_err(|(message, start)| (message.to_owned(), start));
        assert_eq!(found.map_err(|error| (error.to_string(), error.span.start)), expected, "{text}");
    }

    #[test]
    fn reads_precedence_and_refuses_with_a_place() {
        check("a && b && c && d", Ok(2));
        check("a.b.c", Ok(3));
        check("!a == b || c", Ok(4));
        check(&vec!["a"; 200].join(" || "), Ok(2));
        check("(a", Err(("Unexpected end of expression", 1)));
        check("a)", Err(("Unexpected symbol: ')'", 1)));
        check("a b", Err(("Unexpected symbol: 'b'", 2)));
        check("a.", Err(("Unexpected end of expression", 1)));
        check("a ==", Err(("Unexpected end of expression", 3)));
        check("startWith('a', 'b')", Err(("Unrecognized function: 'startWith'", 0)));
        check(&"(".repeat(20_000), Err(("Exceeded max expression depth 50", 0)));
        check(&"a".repeat(21_001), Err(("Exceeded max expression length 21000", 0)));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-c.*()\\[\\]'!<>=&|, 0-9xé\"-]{0,60}") {
            let _ = parse(&text);
        }

        #[test]
        fn never_panics_on_anything(text in any::<String>()) {
            let _ = parse(&text);
        }
    }
}
