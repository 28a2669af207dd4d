//! The size of a value in a host call, and a short hash of it. A serde serializer walks the value and adds
//! up, so nothing is encoded. A text or byte string counts its length, and every other scalar counts eight
//! bytes.

use std::fmt::{self, Display};
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::{FixedState, FoldHasher};
use serde::Serialize;
use serde::ser::{self, Impossible};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weight {
    pub bytes: u64,
    /// Hash of the shape and of the beginnings of the texts. It identifies repeated calls in a log.
    pub digest: u32,
}

pub(crate) fn of(value: &impl Serialize) -> Weight {
    let mut scale = Scale { bytes: 0, hasher: FixedState::default().build_hasher() };
    // This serializer never fails, and the types of the contract have no serializer of their own that could.
    let _ = value.serialize(&mut scale);
    Weight { bytes: scale.bytes, digest: scale.hasher.finish() as u32 }
}

/// Bytes of a text that go into the hash. To hash the whole of a large text would cost more than the host
/// call.
const HASHED_BYTES: usize = 64;

struct Scale {
    bytes: u64,
    hasher: FoldHasher<'static>,
}

impl Scale {
    fn scalar(&mut self, bits: u64) -> Result<(), Never> {
        self.bytes += 8;
        self.hasher.write_u64(bits);
        Ok(())
    }

    fn text(&mut self, text: &[u8]) -> Result<(), Never> {
        self.bytes += text.len() as u64;
        self.hasher.write(&text[..text.len().min(HASHED_BYTES)]);
        self.hasher.write_usize(text.len());
        Ok(())
    }
}

#[derive(Debug)]
struct Never;

impl Display for Never {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("serde cannot walk this value")
    }
}

impl std::error::Error for Never {}

impl ser::Error for Never {
    fn custom<T: Display>(_: T) -> Self {
        Self
    }
}

impl ser::Serializer for &mut Scale {
    type Ok = ();
    type Error = Never;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Impossible<(), Never>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    fn serialize_bool(self, v: bool) -> Result<(), Never> {
        self.scalar(v.into())
    }
    fn serialize_i8(self, v: i8) -> Result<(), Never> {
        self.scalar(v as u64)
    }
    fn serialize_i16(self, v: i16) -> Result<(), Never> {
        self.scalar(v as u64)
    }
    fn serialize_i32(self, v: i32) -> Result<(), Never> {
        self.scalar(v as u64)
    }
    fn serialize_i64(self, v: i64) -> Result<(), Never> {
        self.scalar(v as u64)
    }
    /// `list<u8>` reaches serde as a sequence of these: one byte each.
    fn serialize_u8(self, _: u8) -> Result<(), Never> {
        self.bytes += 1;
        Ok(())
    }
    fn serialize_u16(self, v: u16) -> Result<(), Never> {
        self.scalar(v.into())
    }
    fn serialize_u32(self, v: u32) -> Result<(), Never> {
        self.scalar(v.into())
    }
    fn serialize_u64(self, v: u64) -> Result<(), Never> {
        self.scalar(v)
    }
    fn serialize_f32(self, v: f32) -> Result<(), Never> {
        self.scalar(v.to_bits().into())
    }
    fn serialize_f64(self, v: f64) -> Result<(), Never> {
        self.scalar(v.to_bits())
    }
    fn serialize_char(self, v: char) -> Result<(), Never> {
        self.scalar(u32::from(v).into())
    }
    fn serialize_str(self, v: &str) -> Result<(), Never> {
        self.text(v.as_bytes())
    }
    fn serialize_bytes(self, v: &[u8]) -> Result<(), Never> {
        self.text(v)
    }
    fn serialize_none(self) -> Result<(), Never> {
        Ok(())
    }
    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Result<(), Never> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<(), Never> {
        Ok(())
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Never> {
        Ok(())
    }
    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Result<(), Never> {
        self.scalar(index.into())
    }
    fn serialize_newtype_struct<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Never> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Never> {
        self.hasher.write_u32(index);
        value.serialize(self)
    }
    fn serialize_seq(self, len: Option<usize>) -> Result<Self, Never> {
        self.hasher.write_usize(len.unwrap_or_default());
        Ok(self)
    }
    fn serialize_tuple(self, _: usize) -> Result<Self, Never> {
        Ok(self)
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Never> {
        Ok(self)
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Never> {
        self.hasher.write_u32(index);
        Ok(self)
    }
    /// WIT has no maps.
    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Never> {
        Err(Never)
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Never> {
        Ok(self)
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Never> {
        self.hasher.write_u32(index);
        Ok(self)
    }
}

macro_rules! adds_up {
    ($($compound:ident :: $element:ident),*) => {$(
        impl ser::$compound for &mut Scale {
            type Ok = ();
            type Error = Never;
            fn $element<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Never> {
                value.serialize(&mut **self)
            }
            fn end(self) -> Result<(), Never> {
                Ok(())
            }
        }
    )*};
    (fields: $($compound:ident),*) => {$(
        impl ser::$compound for &mut Scale {
            type Ok = ();
            type Error = Never;
            fn serialize_field<T: ?Sized + Serialize>(
                &mut self,
                _: &'static str,
                value: &T,
            ) -> Result<(), Never> {
                value.serialize(&mut **self)
            }
            fn end(self) -> Result<(), Never> {
                Ok(())
            }
        }
    )*};
}

adds_up!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);
adds_up!(fields: SerializeStruct, SerializeStructVariant);

#[cfg(test)]
mod tests {
    use super::*;
    use switchboard_contract::postgres::{Rows, Value};

    #[test]
    fn adds_up_what_crosses() {
        let rows = Rows {
            columns: vec!["id".into()],
            cells: vec![
                Value::Text("abc".into()),
                Value::Null,
                Value::Integer(7),
                Value::Bytes(vec![0; 5]),
                Value::Texts(vec!["x".into(), "yz".into()]),
            ],
            affected: 1,
        };
        // id 2, abc 3, null's variant 8, 7 is 8, bytes 5, texts 3, affected 8
        assert_eq!(of(&rows).bytes, 2 + 3 + 8 + 8 + 5 + 3 + 8);
    }

    #[test]
    fn the_digest_tells_calls_apart() {
        assert_eq!(of(&("select 1", 1)).digest, of(&("select 1", 1)).digest);
        assert_ne!(of(&("select 1", 1)).digest, of(&("select 1", 2)).digest);
    }
}
