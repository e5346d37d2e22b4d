//! Rows of any table for tests, from drawn values.

use std::collections::BTreeSet;

use crate::model::Word;

/// A value of each type that a column can have, and whether a nullable column has none. The numbers stand for
/// words by their index in the vocabulary.
pub(super) type DrawnValues = (bool, u16, u32, i64, f64, String, Vec<u16>);

/// A type of which a value can be drawn.
pub(super) trait Drawn {
    /// The value of this type.
    fn drawn(values: &DrawnValues) -> Self;
}

/// A row that can be drawn.
pub(super) trait DrawnRow {
    /// Draws a row: each column from the next values.
    fn drawn_row<'a>(values: impl Iterator<Item = &'a DrawnValues>) -> Self;
}

fn word<W: Word>(number: u16) -> W {
    W::ALL[usize::from(number) % W::ALL.len()]
}

impl<W: Word> Drawn for W {
    fn drawn(values: &DrawnValues) -> Self {
        word(values.1)
    }
}

impl<W: Word> Drawn for BTreeSet<W> {
    fn drawn(values: &DrawnValues) -> Self {
        values.6.iter().copied().map(word).collect()
    }
}

impl Drawn for Vec<u8> {
    fn drawn(values: &DrawnValues) -> Self {
        values.6.iter().flat_map(|number| number.to_le_bytes()).collect()
    }
}

impl<T: Drawn> Drawn for Option<T> {
    fn drawn(values: &DrawnValues) -> Self {
        values.0.then(|| T::drawn(values))
    }
}

macro_rules! drawn {
    ($($rust:ty = $part:tt),+) => {
        $(
            impl Drawn for $rust {
                fn drawn(values: &DrawnValues) -> Self {
                    values.$part.clone()
                }
            }
        )+
    };
}

drawn!(bool = 0, u16 = 1, u32 = 2, i64 = 3, f64 = 4, String = 5);
