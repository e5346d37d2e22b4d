//! How a value of Rust lies in a column of Arrow.
//!
//! Plain types only (no dictionaries, no fixed-size binaries): they mean the same in every reader. A value of
//! a closed vocabulary ([`Word`]) is text in the file and an enum on this side of it.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType, UInt16Type, UInt32Type};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray, UInt16Array, UInt32Array,
};
use arrow_schema::{DataType, Field, TimeUnit};

use crate::model::{UnknownWord, Word};

/// The ending of a name that makes an `i64` column an instant: microseconds since 1970 UTC.
const INSTANT: &str = "_at_us";

/// Why the values of a column cannot be read.
pub(super) enum Unfit {
    /// The column has another type than the field.
    Type,
    /// The row of this index, from 0, has a text that is no word of the vocabulary.
    Word(usize, UnknownWord),
}

/// A value that is always there.
pub(super) trait Scalar: Sized {
    /// The Arrow type of a column of this name.
    fn data_type(column: &str) -> DataType;
    /// Makes a column from its values.
    fn array<'a>(column: &str, values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef
    where
        Self: 'a;
    /// Reads the values of a column.
    fn values(array: &dyn Array) -> Result<Vec<Option<Self>>, Unfit>;
}

/// A field of a row: a [`Scalar`] or an `Option` of one.
pub(super) trait Cell: Sized {
    /// Whether the column may lack values.
    const IS_NULLABLE: bool;
    /// Type of the value when it is there.
    type Scalar: Scalar;
    /// The value, if it is there.
    fn scalar(&self) -> Option<&Self::Scalar>;
    /// Makes the field from a value that may be absent; none where it must not be.
    fn from_scalar(value: Option<Self::Scalar>) -> Option<Self>;
}

impl<T: Scalar> Cell for T {
    const IS_NULLABLE: bool = false;
    type Scalar = T;

    fn scalar(&self) -> Option<&T> {
        Some(self)
    }

    fn from_scalar(value: Option<T>) -> Option<Self> {
        value
    }
}

impl<T: Scalar> Cell for Option<T> {
    const IS_NULLABLE: bool = true;
    type Scalar = T;

    fn scalar(&self) -> Option<&T> {
        self.as_ref()
    }

    fn from_scalar(value: Option<T>) -> Option<Self> {
        Some(value)
    }
}

macro_rules! number {
    ($rust:ty, $arrow:ident, $array:ident, $primitive:ident) => {
        impl Scalar for $rust {
            fn data_type(_column: &str) -> DataType {
                DataType::$arrow
            }

            fn array<'a>(_column: &str, values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef {
                Arc::new(values.map(Option::<&Self>::copied).collect::<$array>())
            }

            fn values(array: &dyn Array) -> Result<Vec<Option<Self>>, Unfit> {
                Ok(array.as_primitive_opt::<$primitive>().ok_or(Unfit::Type)?.iter().collect())
            }
        }
    };
}

number!(u16, UInt16, UInt16Array, UInt16Type);
number!(u32, UInt32, UInt32Array, UInt32Type);
number!(f64, Float64, Float64Array, Float64Type);

impl Scalar for i64 {
    fn data_type(column: &str) -> DataType {
        if column.ends_with(INSTANT) {
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        } else {
            DataType::Int64
        }
    }

    fn array<'a>(column: &str, values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef {
        let values = values.map(Option::<&Self>::copied);
        if column.ends_with(INSTANT) {
            Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        } else {
            Arc::new(values.collect::<Int64Array>())
        }
    }

    fn values(array: &dyn Array) -> Result<Vec<Option<Self>>, Unfit> {
        if let Some(instants) = array.as_primitive_opt::<TimestampMicrosecondType>() {
            return Ok(instants.iter().collect());
        }
        Ok(array.as_primitive_opt::<Int64Type>().ok_or(Unfit::Type)?.iter().collect())
    }
}

impl Scalar for bool {
    fn data_type(_column: &str) -> DataType {
        DataType::Boolean
    }

    fn array<'a>(_column: &str, values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef {
        Arc::new(values.map(Option::<&Self>::copied).collect::<BooleanArray>())
    }

    fn values(array: &dyn Array) -> Result<Vec<Option<Self>>, Unfit> {
        Ok(array.as_boolean_opt().ok_or(Unfit::Type)?.iter().collect())
    }
}

impl Scalar for String {
    fn data_type(_column: &str) -> DataType {
        DataType::Utf8
    }

    fn array<'a>(_column: &str, values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef {
        Arc::new(values.collect::<StringArray>())
    }

    fn values(array: &dyn Array) -> Result<Vec<Option<Self>>, Unfit> {
        let texts = array.as_string_opt::<i32>().ok_or(Unfit::Type)?;
        Ok(texts.iter().map(|text| text.map(str::to_owned)).collect())
    }
}

impl Scalar for Vec<u8> {
    fn data_type(_column: &str) -> DataType {
        DataType::Binary
    }

    fn array<'a>(_column: &str, values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef {
        Arc::new(values.collect::<BinaryArray>())
    }

    fn values(array: &dyn Array) -> Result<Vec<Option<Self>>, Unfit> {
        let blobs = array.as_binary_opt::<i32>().ok_or(Unfit::Type)?;
        Ok(blobs.iter().map(|blob| blob.map(<[u8]>::to_vec)).collect())
    }
}

impl<W: Word> Scalar for W {
    fn data_type(_column: &str) -> DataType {
        DataType::Utf8
    }

    fn array<'a>(_column: &str, values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef {
        Arc::new(values.map(|value| value.map(|word| word.as_str())).collect::<StringArray>())
    }

    fn values(array: &dyn Array) -> Result<Vec<Option<Self>>, Unfit> {
        let texts = array.as_string_opt::<i32>().ok_or(Unfit::Type)?.iter();
        let word = |(row, text): (usize, Option<&str>)| text.map(|text| read(row, text)).transpose();
        texts.enumerate().map(word).collect()
    }
}

/// Reads the word in a row.
fn read<W: Word>(row: usize, text: &str) -> Result<W, Unfit> {
    text.parse().map_err(|unknown| Unfit::Word(row, unknown))
}

/// The item of a list column, named as the Parquet specification asks.
fn list_item() -> Arc<Field> {
    Arc::new(Field::new("element", DataType::Utf8, false))
}

impl<W: Word> Scalar for BTreeSet<W> {
    fn data_type(_column: &str) -> DataType {
        DataType::List(list_item())
    }

    fn array<'a>(_column: &str, values: impl Iterator<Item = Option<&'a Self>>) -> ArrayRef {
        let mut builder = ListBuilder::new(StringBuilder::new()).with_field(list_item());
        for list in values {
            for item in list.into_iter().flatten() {
                builder.values().append_value(item.as_str());
            }
            builder.append(list.is_some());
        }
        Arc::new(builder.finish())
    }

    fn values(array: &dyn Array) -> Result<Vec<Option<Self>>, Unfit> {
        let lists = array.as_list_opt::<i32>().ok_or(Unfit::Type)?.iter();
        let set = |(row, list): (usize, Option<ArrayRef>)| {
            let Some(items) = list else { return Ok(None) };
            let texts = items.as_string_opt::<i32>().ok_or(Unfit::Type)?.iter();
            texts.map(|text| read(row, text.ok_or(Unfit::Type)?)).collect::<Result<_, _>>().map(Some)
        };
        lists.enumerate().map(set).collect()
    }
}

/// A column that rows are sorted by.
pub(super) trait SortKey {
    /// The published order: of words as the text that they are in the file, whatever their order here.
    fn order(&self, other: &Self) -> Ordering;
}

impl<W: Word> SortKey for W {
    fn order(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl<W: Word> SortKey for Option<W> {
    fn order(&self, other: &Self) -> Ordering {
        self.map(W::as_str).cmp(&other.map(W::as_str))
    }
}

macro_rules! key {
    ($($rust:ty),+) => {
        $(
            impl SortKey for $rust {
                fn order(&self, other: &Self) -> Ordering {
                    self.cmp(other)
                }
            }
        )+
    };
}

key!(u32, i64, String);
