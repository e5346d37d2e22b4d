//! The row of a published table: a struct whose documentation is also data.
//!
//! `row!` leaves the struct as it is written and keeps its doc comments, so that what a column means stands in one
//! place for the readers of the code and for those who ask for the schema of a table.

/// What the documentation of a row says.
pub trait Described {
    /// What one row is, a line of the documentation each.
    const ABOUT: &'static [&'static str];
    /// The columns in the order of the fields.
    const COLUMNS: &'static [Column];
}

/// What the documentation of a column says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Name of the column.
    pub name: &'static str,
    /// What the column means, a line of the documentation each.
    pub meaning: &'static [&'static str],
}

/// Declares the row of a published table. Every field is documented.
macro_rules! row {
    (
        $(#[doc = $about:literal])+
        $row_vis:vis struct $row:ident { $( $(#[doc = $meaning:literal])+ $vis:vis $column:ident: $type:ty, )+ }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(test, derive(Default))]
        $row_vis struct $row { $( $(#[doc = $meaning])+ $vis $column: $type, )+ }

        impl $crate::model::Described for $row {
            const ABOUT: &'static [&'static str] = &[$($about),+];
            const COLUMNS: &'static [$crate::model::Column] = &[
                $( $crate::model::Column { name: stringify!($column), meaning: &[$($meaning),+] } ),+
            ];
        }
    };
}
pub(crate) use row;

#[cfg(test)]
mod tests {
    use super::*;

    row! {
        /// A row of a test:
        /// nothing else.
        struct TestRow {
            /// The first.
            first: u32,
            /// The second,
            /// in two lines.
            second_ns: Option<i64>,
        }
    }

    #[test]
    fn the_documentation_is_kept() {
        assert_eq!(TestRow::ABOUT, [" A row of a test:", " nothing else."]);
        let names: Vec<&str> = TestRow::COLUMNS.iter().map(|column| column.name).collect();
        assert_eq!(names, ["first", "second_ns"]);
        assert_eq!(TestRow::COLUMNS[1].meaning, [" The second,", " in two lines."]);
    }
}
