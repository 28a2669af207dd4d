//! Run SQL, with typed rows and parameters. `wit/postgres.wit`.
//!
//! ```ignore
//! sdk::rows! { struct Member { role: String, left: bool } }
//! let member: Option<Member> = postgres::query(sql::MEMBER, &params![conversation, caller.user_id])?.one()?;
//! ```

pub use crate::bindings::platform::switchboard::host::postgres::{
    Collected, Error, Rows, SqlError, Transaction, Value, begin, collect, execute, query,
};
use crate::{Id, Problem, log};

/// Parameters of a statement: `params![id, name, limit]`.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => { [$($crate::postgres::Value::from($value)),*] };
}

/// Declares structs whose fields are read from the columns of the same names.
#[macro_export]
macro_rules! rows {
    ($($(#[$meta:meta])* $visible:vis struct $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)? })*) => { $(
        $(#[$meta])*
        $visible struct $name { $($(#[$field_meta])* $visible $field: $type),* }

        impl $crate::postgres::FromRow for $name {
            fn from_row(row: &$crate::postgres::Row<'_>) -> Result<Self, $crate::postgres::Mismatch> {
                Ok(Self { $($field: row.get(stringify!($field))?),* })
            }
        }
    )* };
}

/// An array parameter whose elements may be null, which [`Value::Texts`] and [`Value::Integers`] cannot have.
/// The statement gives it its type.
pub fn array_with_nulls<T: std::fmt::Display>(elements: impl IntoIterator<Item = Option<T>>) -> Value {
    let element = |element: Option<T>| match element {
        Some(value) => {
            let text = value.to_string().replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{text}\"")
        }
        None => "NULL".to_owned(),
    };
    let elements: Vec<String> = elements.into_iter().map(element).collect();
    Value::Text(format!("{{{}}}", elements.join(",")))
}

pub trait FromRow: Sized {
    fn from_row(row: &Row<'_>) -> Result<Self, Mismatch>;
}

/// One row of a result.
pub struct Row<'a> {
    columns: &'a [String],
    cells: &'a [Value],
}

impl Row<'_> {
    pub fn get<T: FromCell>(&self, column: &str) -> Result<T, Mismatch> {
        let index = self.columns.iter().position(|name| name == column);
        let cell = index.and_then(|index| self.cells.get(index));
        cell.and_then(T::from_cell).ok_or_else(|| Mismatch { column: column.to_owned() })
    }
}

impl Rows {
    pub fn len(&self) -> usize {
        self.cells.len().checked_div(self.columns.len()).unwrap_or(0)
    }

    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        let width = self.columns.len().max(1);
        self.cells.chunks_exact(width).map(|cells| Row { columns: &self.columns, cells })
    }

    /// The first row; `None` if the result is empty.
    pub fn one<T: FromRow>(&self) -> Result<Option<T>, Mismatch> {
        self.iter().next().map(|row| T::from_row(&row)).transpose()
    }

    pub fn all<T: FromRow>(&self) -> Result<Vec<T>, Mismatch> {
        self.iter().map(|row| T::from_row(&row)).collect()
    }

    /// The first cell of the first row, for statements that return one value: a `json_agg`, a count, an id.
    pub fn cell<T: FromCell>(&self) -> Result<Option<T>, Mismatch> {
        match self.cells.first() {
            None => Ok(None),
            Some(cell) => {
                T::from_cell(cell).map(Some).ok_or_else(|| Mismatch { column: self.columns[0].clone() })
            }
        }
    }
}

/// A row lacks a column, or the column has another type: the statement and the code that reads its rows
/// disagree. It is a fault of the handler.
#[derive(Debug, PartialEq)]
pub struct Mismatch {
    column: String,
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "column `{}` is missing or of another type", self.column)
    }
}

pub trait FromCell: Sized {
    fn from_cell(cell: &Value) -> Option<Self>;
}

macro_rules! from_cell {
    ($($type:ty: $pattern:pat => $value:expr),* $(,)?) => { $(
        impl FromCell for $type {
            fn from_cell(cell: &Value) -> Option<Self> {
                match cell { $pattern => $value, _ => None }
            }
        }
    )* };
}

from_cell! {
    String: Value::Text(text) => Some(text.clone()),
    bool: Value::Boolean(value) => Some(*value),
    i64: Value::Integer(number) => Some(*number),
    u64: Value::Integer(number) => u64::try_from(*number).ok(),
    u32: Value::Integer(number) => u32::try_from(*number).ok(),
    f64: Value::Float(number) => Some(*number),
    Id: Value::Text(text) => Id::parse(text),
    Vec<String>: Value::Texts(texts) => Some(texts.clone()),
    Vec<i64>: Value::Integers(numbers) => Some(numbers.clone()),
}

impl<T: FromCell> FromCell for Option<T> {
    fn from_cell(cell: &Value) -> Option<Self> {
        match cell {
            Value::Null => Some(None),
            other => T::from_cell(other).map(Some),
        }
    }
}

macro_rules! into_value {
    ($($type:ty: $value:ident => $made:expr),* $(,)?) => { $(
        impl From<$type> for Value {
            fn from($value: $type) -> Self { $made }
        }
    )* };
}

into_value! {
    bool: value => Value::Boolean(value),
    i64: value => Value::Integer(value),
    i32: value => Value::Integer(value.into()),
    u32: value => Value::Integer(value.into()),
    // The product's own numbers stay far below 2^63. `json` and `http` refuse larger numbers of clients.
    u64: value => Value::Integer(value.min(i64::MAX as u64) as i64),
    f64: value => Value::Float(value),
    String: value => Value::Text(value),
    &String: value => Value::Text(value.clone()),
    &str: value => Value::Text(value.to_owned()),
    Id: value => Value::Text(value.to_string()),
    Vec<String>: value => Value::Texts(value),
    &[String]: value => Value::Texts(value.to_vec()),
    &[Id]: value => Value::Texts(value.iter().map(Id::to_string).collect()),
    Vec<i64>: value => Value::Integers(value),
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

impl Error {
    /// Whether a retry may succeed. After `UnknownOutcome`, the first attempt may have committed: retry only
    /// what is idempotent.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Retryable(_) | Self::Busy | Self::Deadline | Self::UnknownOutcome)
    }

    /// The name of the constraint that the statement violated. Handlers map it to a problem.
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Sql(error) => error.constraint.as_deref(),
            _ => None,
        }
    }
}

impl From<Mismatch> for Problem {
    fn from(mismatch: Mismatch) -> Self {
        log::error("a row is not what the code expects", &[("column", &mismatch.column)]);
        Problem::internal()
    }
}

/// A failure that is not the client's fault. The cause is logged; the client only learns whether to retry.
impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Retryable(_) | Error::Busy | Error::Deadline | Error::UnknownOutcome => {
                Problem::unavailable()
            }
            Error::Sql(error) => {
                // The message may quote values of the row, so only the code and the constraint are logged.
                let constraint = error.constraint.unwrap_or_default();
                log::error("a statement failed", &[("code", &error.code), ("constraint", &constraint)]);
                Problem::internal()
            }
            Error::Refused(why) => {
                log::error("postgres refused", &[("why", &why)]);
                Problem::internal()
            }
            Error::TooLarge(bytes) => {
                log::error("an answer is too large", &[("bytes", &bytes.to_string())]);
                Problem::internal()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    rows! {
        #[derive(Debug, PartialEq)]
        struct Member { user_id: String, seq: u64, left: Option<bool> }
    }

    fn rows() -> Rows {
        Rows {
            columns: ["user_id", "seq", "left"].map(String::from).to_vec(),
            cells: vec![
                Value::Text("ana".into()),
                Value::Integer(7),
                Value::Null,
                Value::Text("bo".into()),
                Value::Integer(8),
                Value::Boolean(true),
            ],
            affected: 2,
        }
    }

    #[test]
    fn rows_become_structs_by_column_name() {
        let members: Vec<Member> = rows().all().unwrap();
        assert_eq!(members[0], Member { user_id: "ana".into(), seq: 7, left: None });
        assert_eq!(members[1].left, Some(true));
        assert_eq!(rows().cell::<String>().unwrap().as_deref(), Some("ana"));
        assert_eq!(rows().len(), 2);
    }

    #[test]
    fn a_mismatch_names_the_column() {
        rows! {
            #[derive(Debug)]
            #[allow(dead_code)]
            struct Wrong { seq: String }
        }
        assert_eq!(
            rows().one::<Wrong>().unwrap_err().to_string(),
            "column `seq` is missing or of another type"
        );
    }

    #[test]
    fn an_array_literal_quotes_every_element_but_null() {
        let names = array_with_nulls([Some("a\"b\\,{}"), None, Some("NULL"), Some("")]);
        assert_eq!(names, Value::Text(r#"{"a\"b\\,{}",NULL,"NULL",""}"#.into()));
        assert_eq!(array_with_nulls([Some(7), None]), Value::Text(r#"{"7",NULL}"#.into()));
        assert_eq!(array_with_nulls::<u64>([]), Value::Text("{}".into()));
    }

    #[test]
    fn params_convert_values_of_every_type() {
        let none: Option<Id> = None;
        assert_eq!(
            params![1u64, "x", none, true],
            [Value::Integer(1), Value::Text("x".into()), Value::Null, Value::Boolean(true)]
        );
    }
}
