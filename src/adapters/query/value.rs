//! The engine's frames and values as plain rows and JSON.

use polars::prelude::{AnyValue, DataFrame, TimeUnit};
use serde_json::{Map, Value};

use crate::report::QueryResult;

/// The rows and columns of a frame.
pub(super) fn result(frame: &DataFrame, warnings: Vec<String>) -> QueryResult {
    let columns: Vec<String> = frame.get_column_names().iter().map(ToString::to_string).collect();
    let types = frame.dtypes().iter().map(ToString::to_string).collect();
    let mut rows = vec![Vec::with_capacity(columns.len()); frame.height()];
    for column in frame.columns() {
        for (row, value) in rows.iter_mut().zip(column.as_materialized_series().iter()) {
            row.push(json_value(&value));
        }
    }
    QueryResult { columns, types, rows, warnings }
}

/// A value as JSON: instants and dates as ISO 8601 text, what is not a number as null.
fn json_value(value: &AnyValue<'_>) -> Value {
    match value {
        AnyValue::Null => Value::Null,
        AnyValue::Boolean(value) => Value::from(*value),
        AnyValue::String(text) => Value::from(*text),
        AnyValue::StringOwned(text) => Value::from(text.as_str()),
        AnyValue::Int8(number) => Value::from(*number),
        AnyValue::Int16(number) => Value::from(*number),
        AnyValue::Int32(number) => Value::from(*number),
        AnyValue::Int64(number) => Value::from(*number),
        AnyValue::UInt8(number) => Value::from(*number),
        AnyValue::UInt16(number) => Value::from(*number),
        AnyValue::UInt32(number) => Value::from(*number),
        AnyValue::UInt64(number) => Value::from(*number),
        AnyValue::Float32(number) => Value::from(f64::from(*number)),
        AnyValue::Float64(number) => Value::from(*number),
        AnyValue::Date(days) => Value::from(instant(i64::from(*days) * 86_400_000_000, "%Y-%m-%d")),
        AnyValue::Datetime(count, unit, zone) => Value::from(datetime(*count, *unit, zone.is_some())),
        AnyValue::DatetimeOwned(count, unit, zone) => Value::from(datetime(*count, *unit, zone.is_some())),
        AnyValue::List(items) => items.iter().map(|item| json_value(&item)).collect(),
        AnyValue::StructOwned(parts) => {
            let names = parts.1.iter().map(|field| field.name().to_string());
            Value::Object(names.zip(parts.0.iter().map(json_value)).collect::<Map<_, _>>())
        }
        AnyValue::Struct(..) => json_value(&value.clone().into_static()),
        other => Value::from(other.to_string()),
    }
}

fn datetime(count: i64, unit: TimeUnit, has_zone: bool) -> String {
    let microseconds = match unit {
        TimeUnit::Nanoseconds => count.div_euclid(1000),
        TimeUnit::Microseconds => count,
        TimeUnit::Milliseconds => count.saturating_mul(1000),
    };
    instant(microseconds, if has_zone { "%Y-%m-%dT%H:%M:%S%.fZ" } else { "%Y-%m-%dT%H:%M:%S%.f" })
}

/// An instant in UTC, or its microseconds where they are beyond the calendar.
fn instant(microseconds: i64, format: &str) -> String {
    jiff::Timestamp::from_microsecond(microseconds)
        .map_or_else(|_| microseconds.to_string(), |instant| instant.strftime(format).to_string())
}
