//! Reading and writing the fields of coordinator and metadata records, by Kafka's own serialisation rules.
//!
//! These records are read back from the broker's own log, yet nothing is trusted: every length is checked against the
//! bytes left before anything is allocated.

use bytes::{BufMut, Bytes, BytesMut};
use protocol::Uuid;

/// Bytes that are not a record of the kind asked for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CodecError {
    #[error("ends inside {0}")]
    Truncated(&'static str),
    #[error("{0} is not valid")]
    Invalid(&'static str),
    #[error("{what} has unknown version {version}")]
    Version { what: &'static str, version: i32 },
}

#[derive(Debug)]
pub(crate) struct Writer(BytesMut);

impl Writer {
    pub fn new() -> Self {
        Self(BytesMut::with_capacity(128))
    }

    pub fn finish(self) -> Bytes {
        self.0.freeze()
    }

    pub fn i8(&mut self, v: i8) {
        self.0.put_i8(v);
    }

    pub fn i16(&mut self, v: i16) {
        self.0.put_i16(v);
    }

    pub fn u16(&mut self, v: u16) {
        self.0.put_u16(v);
    }

    pub fn i32(&mut self, v: i32) {
        self.0.put_i32(v);
    }

    pub fn i64(&mut self, v: i64) {
        self.0.put_i64(v);
    }

    pub fn uuid(&mut self, v: Uuid) {
        self.0.put_slice(v.as_bytes());
    }

    pub fn uvarint(&mut self, mut v: u32) {
        while v >= 0x80 {
            self.0.put_u8((v as u8) | 0x80);
            v >>= 7;
        }
        self.0.put_u8(v as u8);
    }

    /// A string with a two-byte length.
    pub fn string(&mut self, v: &str) {
        let len = i16::try_from(v.len()).expect("strings of requests are below 32 KiB");
        self.0.put_i16(len);
        self.0.put_slice(v.as_bytes());
    }

    /// -1 is null.
    pub fn nullable_string(&mut self, v: Option<&str>) {
        match v {
            Some(v) => self.string(v),
            None => self.i16(-1),
        }
    }

    /// A count with four bytes.
    pub fn len(&mut self, len: usize) {
        self.i32(i32::try_from(len).expect("fields of requests are below 2 GiB"));
    }

    /// Bytes with a four-byte length.
    pub fn bytes(&mut self, v: &[u8]) {
        self.len(v.len());
        self.0.put_slice(v);
    }

    pub fn nullable_compact_string(&mut self, v: Option<&str>) {
        match v {
            Some(v) => self.compact_string(v),
            None => self.uvarint(0),
        }
    }

    pub fn compact_string(&mut self, v: &str) {
        self.compact_len(v.len());
        self.0.put_slice(v.as_bytes());
    }

    pub fn compact_len(&mut self, len: usize) {
        self.uvarint(u32::try_from(len + 1).expect("fields of requests are below 4 GiB"));
    }

    pub fn no_tags(&mut self) {
        self.uvarint(0);
    }

    /// Tagged fields, in the order of their tags.
    pub fn tags(&mut self, fields: &[(u32, Bytes)]) {
        debug_assert!(fields.is_sorted_by_key(|f| f.0), "tags are written in order");
        self.uvarint(fields.len() as u32);
        for (tag, data) in fields {
            self.uvarint(*tag);
            self.uvarint(data.len() as u32);
            self.0.put_slice(data);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn take(&mut self, n: usize, what: &'static str) -> Result<&'a [u8], CodecError> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(CodecError::Truncated(what))?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], CodecError> {
        let (head, tail) = self.0.split_first_chunk().ok_or(CodecError::Truncated(what))?;
        self.0 = tail;
        Ok(*head)
    }

    pub fn i8(&mut self, what: &'static str) -> Result<i8, CodecError> {
        Ok(i8::from_be_bytes(self.array(what)?))
    }

    pub fn i16(&mut self, what: &'static str) -> Result<i16, CodecError> {
        Ok(i16::from_be_bytes(self.array(what)?))
    }

    pub fn u16(&mut self, what: &'static str) -> Result<u16, CodecError> {
        Ok(u16::from_be_bytes(self.array(what)?))
    }

    pub fn i32(&mut self, what: &'static str) -> Result<i32, CodecError> {
        Ok(i32::from_be_bytes(self.array(what)?))
    }

    pub fn i64(&mut self, what: &'static str) -> Result<i64, CodecError> {
        Ok(i64::from_be_bytes(self.array(what)?))
    }

    pub fn uuid(&mut self, what: &'static str) -> Result<Uuid, CodecError> {
        Ok(Uuid::from_bytes(self.array(what)?))
    }

    pub fn uvarint(&mut self, what: &'static str) -> Result<u32, CodecError> {
        let mut value: u32 = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array(what)?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                return Err(CodecError::Invalid(what));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(CodecError::Invalid(what))
    }

    fn utf8(bytes: &[u8], what: &'static str) -> Result<String, CodecError> {
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| CodecError::Invalid(what))
    }

    pub fn string(&mut self, what: &'static str) -> Result<String, CodecError> {
        let len = usize::try_from(self.i16(what)?).map_err(|_| CodecError::Invalid(what))?;
        Self::utf8(self.take(len, what)?, what)
    }

    pub fn nullable_string(&mut self, what: &'static str) -> Result<Option<String>, CodecError> {
        match self.i16(what)? {
            -1 => Ok(None),
            len => {
                let len = usize::try_from(len).map_err(|_| CodecError::Invalid(what))?;
                Ok(Some(Self::utf8(self.take(len, what)?, what)?))
            }
        }
    }

    /// A count or length with four bytes, not more than the bytes left.
    pub fn len(&mut self, what: &'static str) -> Result<usize, CodecError> {
        let len = usize::try_from(self.i32(what)?).map_err(|_| CodecError::Invalid(what))?;
        if len > self.0.len() { Err(CodecError::Truncated(what)) } else { Ok(len) }
    }

    pub fn bytes(&mut self, what: &'static str) -> Result<Bytes, CodecError> {
        let len = self.len(what)?;
        Ok(Bytes::copy_from_slice(self.take(len, what)?))
    }

    /// A compact length; `None` is null.
    pub fn compact_len(&mut self, what: &'static str) -> Result<Option<usize>, CodecError> {
        let len = self.uvarint(what)?.checked_sub(1).map(|n| n as usize);
        if len.is_some_and(|n| n > self.0.len()) {
            return Err(CodecError::Truncated(what));
        }
        Ok(len)
    }

    pub fn compact_string(&mut self, what: &'static str) -> Result<Option<String>, CodecError> {
        match self.compact_len(what)? {
            None => Ok(None),
            Some(n) => Ok(Some(Self::utf8(self.take(n, what)?, what)?)),
        }
    }

    /// Calls `field` for each tagged field.
    pub fn tags(
        &mut self,
        what: &'static str,
        mut field: impl FnMut(u32, Reader<'a>) -> Result<(), CodecError>,
    ) -> Result<(), CodecError> {
        for _ in 0..self.uvarint(what)? {
            let tag = self.uvarint(what)?;
            let len = self.uvarint(what)? as usize;
            field(tag, Reader(self.take(len, what)?))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_overlong_ones_are_refused() {
        for v in [0, 1, 127, 128, 300, 16_383, 16_384, u32::MAX] {
            let mut w = Writer::new();
            w.uvarint(v);
            assert_eq!(Reader::new(&w.finish()).uvarint("v"), Ok(v));
        }
        assert_eq!(Reader::new(&[0xff; 6]).uvarint("v"), Err(CodecError::Invalid("v")));
        assert_eq!(Reader::new(&[0x80]).uvarint("v"), Err(CodecError::Truncated("v")));
    }

    #[test]
    fn lengths_are_checked_before_anything_is_allocated() {
        let mut w = Writer::new();
        w.uvarint(u32::MAX);
        assert_eq!(Reader::new(&w.finish()).compact_len("a"), Err(CodecError::Truncated("a")));
    }
}
