//! Converts values of the contract to and from Postgres. Parameters are sent as text, so that the statement
//! decides their type. Answers are binary and are decoded by their type. No IO.

use std::error::Error as StdError;
use std::fmt;
use std::fmt::Write as _;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{Format, FromSql, IsNull, Kind as TypeKind, ToSql, Type, to_sql_checked};
use uuid::Uuid;

use switchboard_contract::postgres::{Error, Rows, Value};
use switchboard_core::limits;

/// A parameter of any type. Its `Debug` output hides the value, because the driver logs parameters at debug
/// level.
#[derive(Clone, Copy)]
pub(super) struct Param<'a>(pub &'a Value);

/// An array literal: one column of a group commit.
pub(super) struct Literal(pub String);

impl fmt::Debug for Param<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl fmt::Debug for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl ToSql for Param<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match self.0 {
            Value::Null => return Ok(IsNull::Yes),
            Value::Text(text) => out.put_slice(text.as_bytes()),
            Value::Bytes(bytes) if is_bytea(ty) => out.put_slice(bytes),
            other => {
                let mut text = String::new();
                write_text(other, &mut text);
                out.put_slice(text.as_bytes());
            }
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, ty: &Type) -> Format {
        match self.0 {
            Value::Bytes(_) if is_bytea(ty) => Format::Binary,
            _ => Format::Text,
        }
    }

    to_sql_checked!();
}

impl ToSql for Literal {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.put_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// Checks the number and the size of the parameters of one statement.
pub(super) fn check_params(params: &[Value]) -> Result<(), Error> {
    if params.len() > limits::PARAMETERS_MAX {
        return Err(Error::Refused(format!("a statement has at most {} parameters", limits::PARAMETERS_MAX)));
    }
    if params.iter().map(size).sum::<usize>() > limits::PARAMETERS_BYTES_MAX {
        return Err(Error::Refused(format!(
            "parameters have at most {} bytes",
            limits::PARAMETERS_BYTES_MAX
        )));
    }
    Ok(())
}

/// The size of a value, as it counts against the bounds.
pub(super) fn size(value: &Value) -> usize {
    limits::CELL_BYTES
        + match value {
            Value::Null | Value::Boolean(_) | Value::Integer(_) | Value::Float(_) => 0,
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::Texts(texts) => texts.iter().map(|text| text.len() + limits::CELL_BYTES).sum(),
            Value::Integers(integers) => integers.len() * 8,
        }
}

/// Builds an array literal from one column of several rows. An array inside it becomes the text of its own
/// literal, because Postgres requires arrays of arrays to be rectangular. The statement unnests texts and
/// casts each one.
pub(super) fn array_literal<'a>(values: impl Iterator<Item = &'a Value>) -> Literal {
    let mut literal = String::from("{");
    for (index, value) in values.enumerate() {
        if index > 0 {
            literal.push(',');
        }
        match value {
            Value::Null => literal.push_str("NULL"),
            Value::Text(text) => push_quoted(&mut literal, text),
            Value::Boolean(_) | Value::Integer(_) | Value::Float(_) => write_text(value, &mut literal),
            Value::Bytes(_) | Value::Texts(_) | Value::Integers(_) => {
                let mut text = String::new();
                write_text(value, &mut text);
                push_quoted(&mut literal, &text);
            }
        }
    }
    literal.push('}');
    Literal(literal)
}

/// `{0,1,…}`: the numbers of the calls in a batch.
pub(super) fn numbers_literal(count: usize) -> Literal {
    let mut literal = String::from("{");
    for number in 0..count {
        let comma = if number == 0 { "" } else { "," };
        let _ = write!(literal, "{comma}{number}");
    }
    literal.push('}');
    Literal(literal)
}

/// A result without rows.
pub(super) fn no_rows() -> Rows {
    Rows { columns: Vec::new(), cells: Vec::new(), affected: 0 }
}

fn write_text(value: &Value, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = match value {
        Value::Null => Ok(()),
        Value::Boolean(truth) => out.write_str(if *truth { "t" } else { "f" }),
        Value::Integer(integer) => write!(out, "{integer}"),
        Value::Float(float) if float.is_nan() => out.write_str("NaN"),
        Value::Float(float) if float.is_infinite() => {
            out.write_str(if *float > 0.0 { "Infinity" } else { "-Infinity" })
        }
        // Whole numbers are written without a point, so that they also fit integer parameters, and never with
        // 300 digits.
        Value::Float(float) if *float == 0.0 || (1e-7..1e17).contains(&float.abs()) => {
            write!(out, "{float}")
        }
        Value::Float(float) => write!(out, "{float:e}"),
        Value::Text(text) => out.write_str(text),
        Value::Bytes(bytes) => {
            out.push_str("\\x");
            bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
        }
        Value::Texts(texts) => {
            out.push('{');
            for (index, text) in texts.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                push_quoted(out, text);
            }
            out.write_char('}')
        }
        Value::Integers(integers) => {
            out.push('{');
            for (index, integer) in integers.iter().enumerate() {
                let _ = write!(out, "{}{integer}", if index == 0 { "" } else { "," });
            }
            out.write_char('}')
        }
    };
}

/// Always quoted: then only quotes and backslashes have a meaning, and the word NULL is a text.
fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    for part in text.split_inclusive(['"', '\\']) {
        let escaped = part.len() - usize::from(part.ends_with(['"', '\\']));
        out.push_str(&part[..escaped]);
        if escaped < part.len() {
            out.push('\\');
            out.push_str(&part[escaped..]);
        }
    }
    out.push('"');
}

fn is_bytea(ty: &Type) -> bool {
    *base(ty) == Type::BYTEA
}

fn base(ty: &Type) -> &Type {
    match ty.kind() {
        TypeKind::Domain(inner) => base(inner),
        _ => ty,
    }
}

/// The decoder of a column's cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decode {
    Boolean,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Bytes,
    Text,
    Jsonb,
    Uuid,
    Timestamp,
    Texts,
    Uuids,
    Int2s,
    Int4s,
    Int8s,
    /// The result of a function that returns nothing.
    Void,
}

impl Decode {
    /// Returns `None` when the contract has no value for such a column.
    pub(crate) fn of(ty: &Type) -> Option<Self> {
        let ty = base(ty);
        Some(match *ty {
            Type::BOOL => Self::Boolean,
            Type::INT2 => Self::Int2,
            Type::INT4 => Self::Int4,
            Type::INT8 => Self::Int8,
            Type::OID => Self::Oid,
            Type::FLOAT4 => Self::Float4,
            Type::FLOAT8 => Self::Float8,
            Type::BYTEA => Self::Bytes,
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::JSON => Self::Text,
            Type::JSONB => Self::Jsonb,
            Type::UUID => Self::Uuid,
            Type::TIMESTAMPTZ => Self::Timestamp,
            Type::TEXT_ARRAY | Type::VARCHAR_ARRAY | Type::NAME_ARRAY => Self::Texts,
            Type::UUID_ARRAY => Self::Uuids,
            Type::INT2_ARRAY => Self::Int2s,
            Type::INT4_ARRAY => Self::Int4s,
            Type::INT8_ARRAY => Self::Int8s,
            Type::VOID => Self::Void,
            _ if matches!(ty.kind(), TypeKind::Enum(_)) || ty.name() == "citext" => Self::Text,
            _ => return None,
        })
    }

    /// Decodes a cell. The error is for the handler: the column holds a value that the contract cannot carry.
    pub(crate) fn value(self, cell: Cell<'_>) -> Result<Value, String> {
        let Some(raw) = cell.raw else { return Ok(Value::Null) };
        self.decode(&cell.ty, raw).map_err(|error| format!("a cell of type {}: {error}", cell.ty))
    }

    fn decode(self, ty: &Type, raw: &[u8]) -> Result<Value, Box<dyn StdError + Sync + Send>> {
        let text = |raw: &[u8]| std::str::from_utf8(raw).map(str::to_owned);
        Ok(match self {
            Self::Boolean => Value::Boolean(bool::from_sql(ty, raw)?),
            Self::Int2 => Value::Integer(i16::from_sql(ty, raw)?.into()),
            Self::Int4 => Value::Integer(i32::from_sql(ty, raw)?.into()),
            Self::Int8 => Value::Integer(i64::from_sql(ty, raw)?),
            Self::Oid => Value::Integer(u32::from_sql(ty, raw)?.into()),
            Self::Float4 => Value::Float(f32::from_sql(ty, raw)?.into()),
            Self::Float8 => Value::Float(f64::from_sql(ty, raw)?),
            Self::Bytes => Value::Bytes(raw.to_vec()),
            Self::Text => Value::Text(text(raw)?),
            // The first byte is the version of the format.
            Self::Jsonb => Value::Text(text(raw.get(1..).unwrap_or_default())?),
            Self::Uuid => Value::Text(Uuid::from_sql(ty, raw)?.to_string()),
            Self::Timestamp => Value::Text(timestamp(i64::from_sql(&Type::INT8, raw)?)?),
            Self::Texts => Value::Texts(whole(Vec::<Option<String>>::from_sql(ty, raw)?)?),
            Self::Uuids => Value::Texts(
                whole(Vec::<Option<Uuid>>::from_sql(ty, raw)?)?.iter().map(Uuid::to_string).collect(),
            ),
            Self::Int2s => integers::<i16>(ty, raw)?,
            Self::Int4s => integers::<i32>(ty, raw)?,
            Self::Int8s => integers::<i64>(ty, raw)?,
            Self::Void => Value::Null,
        })
    }
}

/// A cell as the server sent it.
pub(super) struct Cell<'a> {
    ty: Type,
    raw: Option<&'a [u8]>,
}

impl<'a> FromSql<'a> for Cell<'a> {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self { ty: base(ty).clone(), raw: Some(raw) })
    }

    fn from_sql_null(ty: &Type) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self { ty: ty.clone(), raw: None })
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn whole<T>(elements: Vec<Option<T>>) -> Result<Vec<T>, &'static str> {
    elements.into_iter().collect::<Option<_>>().ok_or("NULL inside an array")
}

fn integers<'a, T: FromSql<'a> + Into<i64>>(
    ty: &Type,
    raw: &'a [u8],
) -> Result<Value, Box<dyn StdError + Sync + Send>> {
    Ok(Value::Integers(whole(Vec::<Option<T>>::from_sql(ty, raw)?)?.into_iter().map(Into::into).collect()))
}

/// RFC 3339 in UTC with milliseconds, as on the wire. A handler that needs microseconds casts the column to
/// text.
fn timestamp(since_2000_us: i64) -> Result<String, &'static str> {
    const FROM_1970_TO_2000_S: i64 = 946_684_800;
    match since_2000_us {
        i64::MAX => return Ok("infinity".to_owned()),
        i64::MIN => return Ok("-infinity".to_owned()),
        _ => {}
    }
    let seconds = since_2000_us.div_euclid(1_000_000) + FROM_1970_TO_2000_S;
    let ms = since_2000_us.rem_euclid(1_000_000) / 1000;
    let at = time::OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| "outside the years 0 to 9999")?;
    if at.year() < 0 {
        return Err("outside the years 0 to 9999");
    }
    Ok(format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{ms:03}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &Value) -> String {
        let mut out = String::new();
        write_text(value, &mut out);
        out
    }

    #[test]
    fn values_become_the_text_postgres_reads() {
        for (value, expected) in [
            (Value::Boolean(true), "t"),
            (Value::Integer(i64::MIN), "-9223372036854775808"),
            (Value::Float(3.0), "3"),
            (Value::Float(-0.5), "-0.5"),
            (Value::Float(1e300), "1e300"),
            (Value::Float(f64::NEG_INFINITY), "-Infinity"),
            (Value::Bytes(vec![0, 255]), "\\x00ff"),
            (Value::Texts(vec!["a\"b\\".into(), String::new(), "NULL".into()]), r#"{"a\"b\\","","NULL"}"#),
            (Value::Integers(vec![1, -2]), "{1,-2}"),
        ] {
            assert_eq!(text(&value), expected);
        }
    }

    #[test]
    fn a_column_is_one_array_literal() {
        let column = [
            Value::Null,
            Value::Text("{,}\\\"".into()),
            Value::Bytes(vec![1]),
            Value::Integer(7),
            Value::Texts(vec!["x".into()]),
        ];
        assert_eq!(array_literal(column.iter()).0, r#"{NULL,"{,}\\\"","\\x01",7,"{\"x\"}"}"#);
        assert_eq!(numbers_literal(3).0, "{0,1,2}");
        assert_eq!(numbers_literal(0).0, "{}");
    }

    #[test]
    fn timestamps_have_milliseconds() {
        assert_eq!(timestamp(0).unwrap(), "2000-01-01T00:00:00.000Z");
        assert_eq!(timestamp(-1).unwrap(), "1999-12-31T23:59:59.999Z");
        assert_eq!(timestamp(86_399_123_456).unwrap(), "2000-01-01T23:59:59.123Z");
        assert_eq!(timestamp(i64::MAX).unwrap(), "infinity");
        assert!(timestamp(i64::MAX - 1).is_err());
    }
}
