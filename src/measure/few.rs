//! Lists in a stranger's JSON that have few items, or are not read.
//!
//! An item without content takes three bytes of JSON and a hundred of memory: without a bound of its own a list of them
//! costs many times what was let in.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};

/// A list of at most `MOST` items; a longer one is no value of this type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Few<T, const MOST: usize>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Few<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(OfFew(PhantomData))
    }
}

struct OfFew<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for OfFew<T, MOST> {
    type Value = Few<T, MOST>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MOST} items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            if items.len() >= MOST {
                return Err(A::Error::invalid_length(items.len() + 1, &self));
            }
            items.push(item);
        }
        Ok(Few(items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_list_is_refused() {
        let check = |text: &str, expected: Option<&[u8]>| {
            let found = serde_json::from_str::<Few<u8, 3>>(text).ok();
            assert_eq!(found.map(|Few(items)| items).as_deref(), expected, "{text}");
        };
        check("[]", Some(&[]));
        check("[1,2,3]", Some(&[1, 2, 3]));
        check("[1,2,3,4]", None);
        check("{}", None);
        check("[1,2,300]", None);
    }
}
