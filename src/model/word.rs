//! Closed vocabularies: an enum in the program, a word where a file, a page or a journal begins.
//!
//! `words!` makes such an enum whole in one place: the variants, their words, and the way there and back. Nothing
//! else in the program spells these words, and a text that is none of them is an error, never a default.

use std::fmt;
use std::str::FromStr;

/// A value of a closed vocabulary.
pub trait Word: Copy + Ord + FromStr<Err = UnknownWord> + 'static {
    /// All values, in the order of their declaration.
    const ALL: &'static [Self];

    /// The word that stands for the value in files, tables and messages.
    fn as_str(self) -> &'static str;
}

/// A text that is no word of the vocabulary it was read for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct UnknownWord {
    found: String,
    known: Vec<&'static str>,
}

impl UnknownWord {
    /// Makes the error for a text that is not one of the vocabulary's words.
    pub(super) fn of<W: Word>(text: &str) -> Self {
        Self {
            found: super::identity::excerpt(text),
            known: W::ALL.iter().map(|word| word.as_str()).collect(),
        }
    }
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is none of `{}`", self.found, self.known.join("`, `"))
    }
}

/// Makes a closed vocabulary: an enum whose every variant is given with its word.
macro_rules! words {
    ($(#[$about:meta])* pub enum $name:ident { $( $(#[$doc:meta])* $variant:ident = $word:literal ),+ $(,)? }) => {
        $(#[$about])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        pub enum $name {
            $( $(#[$doc])* #[serde(rename = $word)] $variant ),+
        }

        impl $name {
            /// All values, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),+];

            /// The word that stands for the value in files, tables and messages.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $( Self::$variant => $word ),+
                }
            }
        }

        impl $crate::model::Word for $name {
            const ALL: &'static [Self] = Self::ALL;

            fn as_str(self) -> &'static str {
                self.as_str()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::model::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let known = Self::ALL.iter().copied().find(|word| word.as_str() == text);
                known.ok_or_else(|| $crate::model::UnknownWord::of::<Self>(text))
            }
        }

        /// Rows of tests start from the first value; the program itself has no default.
        #[cfg(test)]
        impl Default for $name {
            fn default() -> Self {
                Self::ALL[0]
            }
        }
    };
}
pub(super) use words;

#[cfg(test)]
mod tests {
    use std::fmt::{Debug, Display};

    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::model::{
        Arm, Check, CheckOutcome, Component, Conclusion, DecisionOutcome, ExchangeEnd, Fault, IgnoreCode,
        ReadStatus, RequestFlag, RequestStatus, Role, Standing,
    };

    fn check<W: Word + Debug + Display + Serialize + DeserializeOwned>() {
        let mut words: Vec<&str> = W::ALL.iter().map(|value| value.as_str()).collect();
        for value in W::ALL {
            let word = value.as_str();
            assert!(word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b)));
            assert_eq!(word.parse::<W>(), Ok(*value));
            assert_eq!(value.to_string(), word);
            let json = serde_json::to_string(value).expect("is a word");
            assert_eq!(json, format!("\"{word}\""));
            assert_eq!(serde_json::from_str::<W>(&json).ok(), Some(*value));
            assert!(word.to_uppercase().parse::<W>().is_err() && format!("{word} ").parse::<W>().is_err());
        }
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), W::ALL.len(), "words are unique");
    }

    #[test]
    fn every_vocabulary_goes_there_and_back() {
        check::<Arm>();
        check::<Check>();
        check::<CheckOutcome>();
        check::<Component>();
        check::<Conclusion>();
        check::<DecisionOutcome>();
        check::<ExchangeEnd>();
        check::<Fault>();
        check::<IgnoreCode>();
        check::<ReadStatus>();
        check::<RequestFlag>();
        check::<RequestStatus>();
        check::<Role>();
        check::<Standing>();
    }

    #[test]
    fn an_unknown_word_is_named_beside_the_known_ones() {
        let error = "champion\u{1b}".parse::<Arm>().expect_err("no arm").to_string();
        assert_eq!(error, "`champion\\u{1b}` is none of `baseline`, `candidate`");
    }
}
