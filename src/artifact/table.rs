//! The schema of every table: which columns a row struct has, in which order, sorted by what.
//!
//! The struct in `model` is the definition; the macro below only repeats its field names, and the
//! compiler refuses a list that is not complete. A column of type `i64` whose name ends in `_at_us` is an
//! instant in UTC. A published table grows by columns that may lack values, in a new list behind `+`, which is a new
//! minor version; any other change is a new major.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow_array::{Array as _, ArrayRef, RecordBatch};
use arrow_schema::{Field, Schema};

use super::cell::{Cell, Scalar as _, SortKey as _, Unfit};
use super::compare::{CellDifference, first_cell};
#[cfg(test)]
use super::drawn::{Drawn, DrawnRow, DrawnValues};
use super::footer::{TableFooter, read_footer};
use super::parquet_file::rewrite_as;
use super::{ArtifactError, FormatVersion, Table, TableContext, encode};
use crate::model::{
    AccountRow, Column, CommitmentRow, DecisionRow, ExchangeRow, GpuSampleRow, HeadToHeadRow, LeaderboardRow,
    ReadRow, RequestRow, RequestTimes, RoundId, StepAttemptRow, StreamRow, SubmissionRow, TickRow, TokenRow,
    VerdictRow, WeightRow,
};

/// What the public may know of a table without reading a file of it.
#[derive(Debug, Clone)]
pub struct TableInfo {
    /// Name of the table.
    pub name: &'static str,
    /// Version of the table's schema.
    pub version: FormatVersion,
    /// What one row is.
    pub about: String,
    /// The columns, in the order of the table's files.
    pub columns: Vec<ColumnInfo>,
}

/// What the public may know of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnInfo {
    /// Name of the column.
    pub name: &'static str,
    /// Type of the column, in Arrow's words.
    pub data_type: String,
    /// Whether rows may lack a value in it.
    pub is_nullable: bool,
    /// Unit of its values, where the name says one.
    pub unit: Option<&'static str>,
    /// What the column means.
    pub meaning: String,
    /// The minor version of the table that added it.
    pub minor: u32,
}

/// Endings of column names, and the unit they stand for.
const UNITS: [(&str, &str); 7] = [
    ("_at_us", "instant, UTC"),
    ("_ns", "ns"),
    ("_bytes", "byte"),
    ("_logprob", "nat"),
    ("_mhz", "MHz"),
    ("_mw", "mW"),
    ("_joules", "J"),
];

impl TableInfo {
    fn of<T: Table>() -> Self {
        let schema = T::schema();
        let column = |column: &Column| {
            let name = column.name;
            let field = schema.field_with_name(name).ok();
            ColumnInfo {
                name,
                data_type: field.map_or_else(String::new, |field| field.data_type().to_string()),
                is_nullable: field.is_some_and(Field::is_nullable),
                unit: UNITS.iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, unit)| *unit),
                meaning: prose(column.meaning),
                minor: T::minor_of(name),
            }
        };
        Self {
            name: T::NAME,
            version: T::VERSION,
            about: prose(T::ABOUT),
            columns: T::COLUMNS.iter().map(column).collect(),
        }
    }
}

/// Lines of documentation as one line.
fn prose(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// The declaration of a column; `_get` only tells its type.
fn field<R, C: Cell>(column: &str, _get: fn(&R) -> &C) -> Field {
    Field::new(column, C::Scalar::data_type(column), C::IS_NULLABLE)
}

/// The column with these rows' values.
fn array<R, C: Cell>(column: &str, rows: &[&R], get: fn(&R) -> &C) -> ArrayRef {
    C::Scalar::array(column, rows.iter().map(|row| get(row).scalar()))
}

/// The values of a column, none of them where a file of an older minor version lacks it; `_get` only tells their
/// type.
fn values<R: Table, C: Cell>(
    column: &str,
    (batch, rows_before): (&RecordBatch, usize),
    _get: fn(&R) -> &C,
) -> Result<std::vec::IntoIter<C>, ArtifactError> {
    let (table, column) = (R::NAME, column.to_owned());
    let Some(array) = batch.column_by_name(&column) else {
        if R::minor_of(&column) == 0 {
            return Err(ArtifactError::MissingColumn { table, column });
        }
        let cells: Option<Vec<C>> = (0..batch.num_rows()).map(|_| C::from_scalar(None)).collect();
        return Ok(cells.ok_or(ArtifactError::NullValue { table, column })?.into_iter());
    };
    let expected = C::Scalar::data_type(&column);
    let read = if *array.data_type() == expected { C::Scalar::values(array) } else { Err(Unfit::Type) };
    let values = match read {
        Ok(values) => values,
        Err(Unfit::Type) => {
            let found = Box::new(array.data_type().clone());
            return Err(ArtifactError::ColumnType { table, column, found, expected: Box::new(expected) });
        }
        Err(Unfit::Word(row, unknown)) => {
            let (row, unknown) = (rows_before + row + 1, Box::new(unknown));
            return Err(ArtifactError::UnknownWord { table, column, row, unknown });
        }
    };
    let cells: Option<Vec<C>> = values.into_iter().map(C::from_scalar).collect();
    Ok(cells.ok_or(ArtifactError::NullValue { table, column })?.into_iter())
}

/// Makes a row struct a table, of a round or beside the rounds.
macro_rules! table {
    ($row:ident = $name:literal v $major:literal by ($($key:ident),+) $($columns:tt)+) => {
        table! {
            @ [fn set_round(&mut self, round_id: &str) {
                if self.round_id != round_id {
                    round_id.clone_into(&mut self.round_id);
                }
            }]
            $row = $name v $major by (round_id, $($key),+) $($columns)+
        }
    };
    ($row:ident = $name:literal v $major:literal beside the rounds by ($($key:ident),+) $($columns:tt)+) => {
        table! { @ [fn set_round(&mut self, _: &str) {}] $row = $name v $major by ($($key),+) $($columns)+ }
    };
    (
        @ [$($set_round:tt)+]
        $row:ident = $name:literal v $major:literal by ($first:ident $(, $key:ident)*) $(long ($($long:ident),+))?
        { $($column:ident),+ $(,)? } $( + { $($added:ident),+ $(,)? } )*
    ) => {
        impl $crate::artifact::Table for $row {
            const NAME: &'static str = $name;
            const ADDED: &'static [&'static [&'static str]] = &[$( &[$( stringify!($added) ),+] ),*];
            const VERSION: FormatVersion = FormatVersion::new($major, Self::ADDED.len() as u32);

            fn schema() -> Schema {
                Schema::new(vec![
                    $( field(stringify!($column), |row: &Self| &row.$column), )+
                    $($( field(stringify!($added), |row: &Self| &row.$added), )+)*
                ])
            }

            fn compare(left: &Self, right: &Self) -> Ordering {
                left.$first.order(&right.$first)$( .then_with(|| left.$key.order(&right.$key)) )*
            }

            $($set_round)+

            fn long_bytes(&self) -> usize {
                0 $($( + self.$long.scalar().map_or(0, |value| value.len()) )+)?
            }

            fn to_batch(rows: &[&Self]) -> Result<RecordBatch, ArtifactError> {
                let columns = vec![
                    $( array(stringify!($column), rows, |row: &Self| &row.$column), )+
                    $($( array(stringify!($added), rows, |row: &Self| &row.$added), )+)*
                ];
                RecordBatch::try_new(Arc::new(Self::schema()), columns)
                    .map_err(|source| ArtifactError::Columns { table: Self::NAME, source })
            }

            fn from_batch(batch: &RecordBatch, rows_before: usize) -> Result<Vec<Self>, ArtifactError> {
                let rows = (batch, rows_before);
                $( let mut $column = values(stringify!($column), rows, |row: &Self| &row.$column)?; )+
                $($( let mut $added = values(stringify!($added), rows, |row: &Self| &row.$added)?; )+)*
                let row = |_| {
                    Some(Self { $( $column: $column.next()?, )+ $($( $added: $added.next()?, )+)* })
                };
                Ok((0..batch.num_rows()).map_while(row).collect())
            }
        }
    };
}

/// Makes a struct some columns of a table.
macro_rules! projection {
    ($projection:ident of $row:ident { $($column:ident),+ $(,)? }) => {
        impl $crate::artifact::Projection for $projection {
            type Row = $row;
            const COLUMNS: Option<&'static [&'static str]> = Some(&[$(stringify!($column)),+]);

            fn project(batch: &RecordBatch, rows_before: usize) -> Result<Vec<Self>, ArtifactError> {
                let rows = (batch, rows_before);
                $( let mut $column = values(stringify!($column), rows, |row: &$row| &row.$column)?; )+
                let row = |_| Some(Self { $( $column: $column.next()?, )+ });
                Ok((0..batch.num_rows()).map_while(row).collect())
            }
        }
    };
}

/// Lets tests draw rows of a table.
macro_rules! drawn {
    ($row:ident { $($column:ident),+ $(,)? } $( + { $($added:ident),+ $(,)? } )*) => {
        #[cfg(test)]
        impl DrawnRow for $row {
            fn drawn_row<'a>(mut values: impl Iterator<Item = &'a DrawnValues>) -> Self {
                Self {
                    $( $column: Drawn::drawn(values.next().expect("values for each column")), )+
                    $($( $added: Drawn::drawn(values.next().expect("values for each column")), )+)*
                }
            }
        }
    };
}

projection! {
    RequestTimes of RequestRow {
        read_key, prompt_index, status, ttft_ns, e2e_ns, mdt_ns, tokens, new_prompt_tokens,
    }
}

// What the client keeps of a read, in its attempt's directory: no published tables.
table! {
    ExchangeRow = "exchanges" v 1 by (read_key, prompt_index) long (content_type, content_encoding, end_detail) {
        round_id, read_key, prompt_index, prompt_sha256, send_offset_ns, connect_ns, sent_ns, headers_ns, end_ns,
        http_status, content_type, content_encoding, content_length, ended, end_detail, pieces,
    } + { new_prompt_tokens, max_tokens }
}
drawn! {
    ExchangeRow {
        round_id, read_key, prompt_index, prompt_sha256, send_offset_ns, connect_ns, sent_ns, headers_ns, end_ns,
        http_status, content_type, content_encoding, content_length, ended, end_detail, pieces,
    } + { new_prompt_tokens, max_tokens }
}
table! {
    StreamRow = "streams" v 1 by (read_key, prompt_index, sequence) long (bytes) {
        round_id, read_key, prompt_index, sequence, at_ns, bytes,
    }
}
drawn! {
    StreamRow { round_id, read_key, prompt_index, sequence, at_ns, bytes }
}

table! {
    GpuSampleRow = "gpu_samples" v 1 by (read_key, at_ns, gpu) {
        round_id, read_key, at_ns, gpu, used_bytes, power_mw, sm_mhz, memory_mhz, celsius, throttle, foreign,
    }
}
drawn! {
    GpuSampleRow {
        round_id, read_key, at_ns, gpu, used_bytes, power_mw, sm_mhz, memory_mhz, celsius, throttle, foreign,
    }
}

// What lies beside the rounds.
table! {
    TickRow = "ticks" v 1 beside the rounds by (nominal_at_us, pipeline, cron, timezone) {
        pipeline, cron, timezone, nominal_at_us, scheduled_at_us, outcome, reason, detail, decided_at_us, ticks,
        round_id, resumes, ended_at_us, exit_code,
    }
}

/// Names of the tables that lie beside the rounds, and are none of a round.
pub const TABLES_BESIDE: [&str; 1] = [TickRow::NAME];

/// The tables that lie beside the rounds with their schemas, in the order of [`TABLES_BESIDE`].
pub fn tables_beside() -> Vec<TableInfo> {
    vec![TableInfo::of::<TickRow>()]
}

/// Lists the published tables, and what is made of all of them.
macro_rules! tables {
    ($(
        $row:ident = $name:literal v $major:literal by ($($key:ident),+) $(long ($($long:ident),+))?
        { $($column:ident),+ $(,)? } $( + { $($added:ident),+ $(,)? } )*
    )+) => {
        $(
            table! {
                $row = $name v $major by ($($key),+) $(long ($($long),+))?
                { $($column),+ } $( + { $($added),+ } )*
            }

            drawn! { $row { $($column),+ } $( + { $($added),+ } )* }
        )+

        /// Names of all tables, in the order in which a round makes them.
        pub const TABLE_NAMES: [&str; [$($name),+].len()] = [$($name),+];

        /// All tables with their schemas, in the order of [`TABLE_NAMES`].
        pub fn tables() -> Vec<TableInfo> {
            vec![$( TableInfo::of::<$row>() ),+]
        }

        /// The file of a table without rows; none if there is no table of this name.
        ///
        /// # Errors
        /// As [`super::encode`].
        pub fn encode_empty(table: &str, context: &TableContext<'_>) -> Option<Result<Vec<u8>, ArtifactError>> {
            match table {
                $( $name => Some(encode::<$row>(&[], context)), )+
                <TickRow as Table>::NAME => Some(encode::<TickRow>(&[], context)),
                _ => None,
            }
        }

        /// The first difference between the rows of two files of a table; none if there is no table of this name.
        ///
        /// # Errors
        /// As [`super::decode`].
        pub fn difference(
            table: &str,
            recorded: &[u8],
            recomputed: &[u8],
        ) -> Option<Result<Option<CellDifference>, ArtifactError>> {
            match table {
                $( $name => Some(first_cell::<$row>(recorded, recomputed)), )+
                <ExchangeRow as Table>::NAME => Some(first_cell::<ExchangeRow>(recorded, recomputed)),
                _ => None,
            }
        }

        /// A stranger's file of a table as a file of our own making, see [`super::decode`]; none if there is no
        /// table of this name. For readers that a crafted file could crash.
        ///
        /// # Errors
        /// As [`super::decode`].
        pub fn rewrite(table: &str, bytes: &[u8]) -> Option<Result<Vec<u8>, ArtifactError>> {
            match table {
                $( $name => Some(rewrite_as::<$row>(bytes)), )+
                _ => None,
            }
        }

        /// What the end of a file says of the table in it, checked against what the table must be; none if there
        /// is no table of this name.
        ///
        /// # Errors
        /// When it is no file of this table in a version that this program reads, or none of this round, or one
        /// that no program of ours would have written.
        pub fn inspect(
            table: &str,
            round_id: &RoundId,
            file: &std::fs::File,
        ) -> Option<Result<TableFooter, ArtifactError>> {
            match table {
                $( $name => Some(read_footer::<$row>(round_id, file)), )+
                _ => None,
            }
        }
    };
}

tables! {
    CommitmentRow = "commitments" v 1 by (position) {
        round_id, position, hotkey, block, image, digest, is_accepted, ignored_code, ignored_reason,
    }
    SubmissionRow = "submissions" v 1 by (block, hotkey) { round_id, hotkey, uid, block, image, digest }
    ReadRow = "reads" v 1 by (position, read_key, attempt) {
        round_id, read_key, arm, hotkey, image, digest, position, sequence, attempt, runner, boot_id, boot_ns,
        warm_up_ns, benchmark_ns, started_at_us, status, fault, reason, detail, requests, failed_requests,
        client_lag_p50_ns, client_lag_p99_ns, client_cpu_ns, machine_cpu, machine_cpus, machine_memory_bytes,
    } + { tokenizer_digest } + { ttft_trend, is_cold, content_digest, foreign_cpu, floor_pass_ns, floor_token_ns, floor_step_tokens } + { repeats, memory_stall, io_stall } + {
        machine_fingerprint, machine_difference, machine_unknown, machine_kernel, cpu_governor, clock_source, disk_free_bytes, gpus, gpu_model, gpu_memory_bytes, gpu_driver, gpu_topology, gpu_used_before_bytes, gpu_celsius_before, gpu_celsius_max, gpu_min_mhz, gpu_mean_mhz, gpu_throttle, gpu_energy_joules, gpu_energy_unknown, gpu_foreign, gpu_uncorrected, gpu_xids_before, gpu_xids, gpu_failure,
    }
    RequestRow = "requests" v 1 by (read_key, prompt_index) long (text) {
        round_id, read_key, prompt_index, prompt_sha256, status, flags, http_status, send_offset_ns, sent_ns,
        headers_ns, first_byte_ns, first_event_ns, ttft_ns, e2e_ns, finish_ns, done_ns, end_ns, tpot_ns, mdt_ns,
        stall_ns, tokens, logprob_tokens, usage_tokens, finish_reason, events, body_bytes, text,
    } + { new_prompt_tokens, max_tokens }
    TokenRow = "tokens" v 1 by (read_key, prompt_index, position) {
        round_id, read_key, prompt_index, position, token_id, is_end, server_logprob, scorer_logprob,
        scorer_rank, scorer_top_logprob, arrival_ns,
    } + { text_ns, logprob_ns }
    VerdictRow = "verdicts" v 1 by (read_key, check) {
        round_id, read_key, hotkey, check, outcome, value, control_value, threshold, samples, reason, evidence,
    }
    DecisionRow = "decisions" v 1 by (hotkey, look, component) {
        round_id, hotkey, component, log_ratio, standard_error, lower, upper, bar, prompts, outcome, reason,
    } + { look }
    HeadToHeadRow = "head_to_head" v 1 by (look, later, earlier) {
        round_id, look, later, earlier, brackets, log_ratio, standard_error, lower, bar, is_proven, reason,
    }
    LeaderboardRow = "leaderboard" v 1 by (rank, hotkey) {
        round_id, rank, hotkey, uid, block, image, digest, score, share, speedup_e2e, speedup_ttft, standing,
        fault, reason, detail,
    }
    WeightRow = "weights" v 1 by (netuid, hotkey) {
        round_id, netuid, hotkey, uid, share, weight, is_dry_run, receipt,
    }
    StepAttemptRow = "step_attempts" v 1 by (job, leg, attempt, step_index) {
        round_id, job, leg, attempt, step_index, step, stage, outcome, conclusion, fault, reason, detail,
        started_at_us, duration_ns,
    }
    AccountRow = "accounts" v 1 by (kind, name) {
        round_id, kind, name, planned, done, failed, missing, fault, reason, first_missing,
    }
}

#[cfg(test)]
pub(super) mod grown;

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn every_schema() {
        let mut text = String::new();
        let kept = [TableInfo::of::<ExchangeRow>(), TableInfo::of::<StreamRow>()];
        for table in tables().into_iter().chain(kept) {
            writeln!(text, "{} v{}: {}", table.name, table.version, table.about).expect("writes to a string");
            for column in table.columns {
                let null = if column.is_nullable { " null" } else { "" };
                let unit = column.unit.map(|unit| format!(" [{unit}]")).unwrap_or_default();
                let ColumnInfo { name, data_type, meaning, .. } = column;
                writeln!(text, "  {name}: {data_type}{null}{unit}: {meaning}").expect("writes to a string");
            }
        }
        insta::assert_snapshot!(text);
    }

    /// The list of columns in the macro and the fields of the struct are in one order.
    #[test]
    fn columns_are_in_the_order_of_the_fields_and_additions_may_lack_values() {
        fn check<T: Table>() {
            let schema = T::schema();
            let documented: Vec<&str> = T::COLUMNS.iter().map(|column| column.name).collect();
            let listed: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            assert_eq!(documented, listed, "{}", T::NAME);
            for field in schema.fields() {
                assert!(field.is_nullable() || T::minor_of(field.name()) == 0, "{}: {field}", T::NAME);
            }
        }
        check::<CommitmentRow>();
        check::<SubmissionRow>();
        check::<ReadRow>();
        check::<RequestRow>();
        check::<TokenRow>();
        check::<VerdictRow>();
        check::<DecisionRow>();
        check::<HeadToHeadRow>();
        check::<LeaderboardRow>();
        check::<WeightRow>();
        check::<StepAttemptRow>();
        check::<grown::GrownRow>();
    }

    #[test]
    fn names_are_unique() {
        let mut names = TABLE_NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE_NAMES.len());
    }
}
