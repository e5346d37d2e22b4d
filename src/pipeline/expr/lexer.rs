//! Expression text -> tokens.

use super::error::{ExprError, ExprFault};
use super::number;
use super::value::Value;
use crate::pipeline::source::Span;

/// One word of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// A literal.
    Literal(Value),
    /// A context's or function's name.
    Name(String),
    /// A name after a dot.
    Property(String),
    /// `*`, after a dot or between brackets.
    Star,
    /// `.`
    Dot,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `[`
    OpenIndex,
    /// `]`
    CloseIndex,
    /// `,`
    Comma,
    /// `!`
    Not,
    /// An operator between two values.
    Operator(Operator),
}

/// An operator between two values, loosest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operator {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Operator {
    /// How tightly the operator binds.
    pub(crate) fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => 2,
            Self::Equal | Self::NotEqual => 3,
            _ => 4,
        }
    }
}

/// A token and its bytes.
pub(crate) type Spanned = (Token, Span);

/// Splits the text.
pub(crate) fn tokens(text: &str) -> Result<Vec<Spanned>, ExprError> {
    let mut lexer = Lexer { text, at: 0, found: Vec::new() };
    while let Some(next) = lexer.rest().chars().next() {
        if next.is_whitespace() {
            lexer.at += next.len_utf8();
        } else {
            lexer.token(next)?;
        }
    }
    Ok(lexer.found)
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    found: Vec<Spanned>,
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn push(&mut self, token: Token, length: usize) {
        let start = self.at;
        self.at += length;
        self.found.push((token, Span::new(start, self.at)));
    }

    fn token(&mut self, next: char) -> Result<(), ExprError> {
        use Operator as O;
        const PUNCTUATION: [(&str, Token); 14] = [
            ("&&", Token::Operator(O::And)),
            ("||", Token::Operator(O::Or)),
            ("==", Token::Operator(O::Equal)),
            ("!=", Token::Operator(O::NotEqual)),
            ("<=", Token::Operator(O::LessOrEqual)),
            (">=", Token::Operator(O::GreaterOrEqual)),
            ("<", Token::Operator(O::Less)),
            (">", Token::Operator(O::Greater)),
            ("!", Token::Not),
            ("(", Token::Open),
            (")", Token::Close),
            ("[", Token::OpenIndex),
            ("]", Token::CloseIndex),
            (",", Token::Comma),
        ];
        if let Some((symbol, token)) = PUNCTUATION.iter().find(|(symbol, _)| self.rest().starts_with(symbol))
        {
            self.push(token.clone(), symbol.len());
            return Ok(());
        }
        match next {
            '\'' => self.string(),
            '.' if self.follows_a_value() => {
                self.push(Token::Dot, 1);
                Ok(())
            }
            '*' => self.star(),
            '0'..='9' | '+' | '-' | '.' => self.number(),
            _ => self.word(),
        }
    }

    fn follows_a_value(&self) -> bool {
        matches!(
            self.found.last(),
            Some((
                Token::Literal(_)
                    | Token::Name(_)
                    | Token::Property(_)
                    | Token::Star
                    | Token::Close
                    | Token::CloseIndex,
                _
            ))
        )
    }

    fn star(&mut self) -> Result<(), ExprError> {
        if matches!(self.found.last(), Some((Token::Dot | Token::OpenIndex, _))) {
            self.push(Token::Star, 1);
            return Ok(());
        }
        Err(self.unexpected(1))
    }

    fn string(&mut self) -> Result<(), ExprError> {
        let mut value = String::new();
        let mut characters = self.rest().char_indices().skip(1).peekable();
        while let Some((offset, character)) = characters.next() {
            if character != '\'' {
                value.push(character);
            } else if characters.next_if(|(_, next)| *next == '\'').is_some() {
                value.push('\'');
            } else {
                self.push(Token::Literal(Value::from(value)), offset + 1);
                return Ok(());
            }
        }
        let symbol = self.rest().to_owned();
        Err(ExprError::new(ExprFault::OpenString { symbol }, Span::new(self.at, self.text.len())))
    }

    fn number(&mut self) -> Result<(), ExprError> {
        let length = self.run_length();
        match number::parse(&self.rest()[..length]) {
            Some(number) => {
                self.push(Token::Literal(Value::Number(number)), length);
                Ok(())
            }
            None => Err(self.unexpected(length)),
        }
    }

    fn word(&mut self) -> Result<(), ExprError> {
        let rest = self.rest();
        let is_start = |c: char| c.is_ascii_alphabetic() || c == '_';
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if !rest.starts_with(is_start) {
            return Err(self.unexpected(self.run_length()));
        }
        let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let is_bounded = rest[length..].chars().next().is_none_or(|c| c == '.' || is_boundary(c));
        if !is_bounded {
            return Err(self.unexpected(self.run_length()));
        }
        let word = &rest[..length];
        let token = match word {
            _ if matches!(self.found.last(), Some((Token::Dot, _))) => Token::Property(word.to_owned()),
            "true" => Token::Literal(Value::Bool(true)),
            "false" => Token::Literal(Value::Bool(false)),
            "null" => Token::Literal(Value::Null),
            "NaN" => Token::Literal(Value::Number(f64::NAN)),
            "Infinity" => Token::Literal(Value::Number(f64::INFINITY)),
            _ => Token::Name(word.to_owned()),
        };
        self.push(token, length);
        Ok(())
    }

    /// How far a number or a wrong word runs: to the next boundary.
    fn run_length(&self) -> usize {
        let rest = self.rest();
        let first = rest.chars().next().map_or(0, char::len_utf8);
        rest[first..].find(is_boundary).map_or(rest.len(), |offset| offset + first)
    }

    fn unexpected(&self, length: usize) -> ExprError {
        let rest = self.rest();
        let is_quoted = rest.starts_with('"');
        let closing = if is_quoted { rest[1..].find('"').map(|offset| offset + 2) } else { None };
        let length = closing.unwrap_or(length).min(rest.len());
        let symbol: String = rest[..length].chars().take(80).collect();
        let span = Span::new(self.at, self.at + length);
        let fault = if is_quoted {
            ExprFault::DoubleQuotes { symbol }
        } else {
            ExprFault::UnexpectedSymbol { symbol }
        };
        ExprError::new(fault, span)
    }
}

fn is_boundary(character: char) -> bool {
    character.is_whitespace()
        || matches!(character, '(' | ')' | '[' | ']' | ',' | '!' | '<' | '>' | '=' | '&' | '|')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_and_refuses() {
        let check = |text: &str, expected: Result<usize, (usize, usize)>| {
            let found = tokens(text).map(|all| all.len()).map_err(|error| (error.span.start, error.span.end));
            assert_eq!(found, expected, "{text}");
        };
        check("a.b[0] == 'x' && !c(1, .5)", Ok(16));
        check("a.*.b[*]", Ok(8));
        check("1 + 2", Err((2, 3)));
        check("a == \"b c\" && d", Err((5, 10)));
        check("'open", Err((0, 5)));
        check("a$b", Err((0, 3)));
        check("ab ; c", Err((3, 4)));
        check("* a", Err((0, 1)));
        check("é", Err((0, 2)));
        check("a & b", Err((2, 3)));
    }
}
