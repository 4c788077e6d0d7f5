//! Reading and writing the processor's own binary formats: big-endian, length-prefixed, nothing trusted.

use bytes::{BufMut, Bytes, BytesMut};

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CodecError {
    #[error("{what} ends after {at} bytes")]
    Truncated { what: &'static str, at: usize },
    #[error("{what} has version {found}, this build reads {known}")]
    Version { what: &'static str, found: u16, known: u16 },
    #[error("{what}: {why}")]
    Malformed { what: &'static str, why: String },
}

#[derive(Debug)]
pub struct Writer(BytesMut);

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    pub fn new() -> Self {
        Self(BytesMut::with_capacity(256))
    }

    pub fn u8(&mut self, v: u8) {
        self.0.put_u8(v);
    }

    pub fn u16(&mut self, v: u16) {
        self.0.put_u16(v);
    }

    pub fn u32(&mut self, v: u32) {
        self.0.put_u32(v);
    }

    pub fn u64(&mut self, v: u64) {
        self.0.put_u64(v);
    }

    pub fn i32(&mut self, v: i32) {
        self.0.put_i32(v);
    }

    pub fn i64(&mut self, v: i64) {
        self.0.put_i64(v);
    }

    pub fn i128(&mut self, v: i128) {
        self.0.put_i128(v);
    }

    /// # Panics
    /// If the length does not fit 32 bits: everything encoded here is bounded far below.
    pub fn count(&mut self, n: usize) {
        self.0.put_u32(u32::try_from(n).unwrap_or_else(|_| panic!("{n} elements in one message")));
    }

    pub fn bytes(&mut self, b: &[u8]) {
        self.count(b.len());
        self.0.put_slice(b);
    }

    pub fn opt_bytes(&mut self, b: Option<&[u8]>) {
        self.u8(u8::from(b.is_some()));
        if let Some(b) = b {
            self.bytes(b);
        }
    }

    pub fn opt_i64(&mut self, v: Option<i64>) {
        self.u8(u8::from(v.is_some()));
        if let Some(v) = v {
            self.i64(v);
        }
    }

    pub fn finish(self) -> Bytes {
        self.0.freeze()
    }
}

/// Takes values off the front of `bytes`; slices share its memory.
#[derive(Debug)]
pub struct Reader {
    what: &'static str,
    bytes: Bytes,
    at: usize,
}

impl Reader {
    pub fn new(what: &'static str, bytes: Bytes) -> Self {
        Self { what, bytes, at: 0 }
    }

    pub fn take(&mut self, n: usize) -> Result<Bytes, CodecError> {
        if self.bytes.len() - self.at < n {
            return Err(CodecError::Truncated { what: self.what, at: self.bytes.len() });
        }
        let slice = self.bytes.slice(self.at..self.at + n);
        self.at += n;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let slice = self.take(N)?;
        let mut array = [0; N];
        array.copy_from_slice(&slice);
        Ok(array)
    }

    pub fn u8(&mut self) -> Result<u8, CodecError> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16, CodecError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, CodecError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, CodecError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub fn i32(&mut self) -> Result<i32, CodecError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64, CodecError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub fn i128(&mut self) -> Result<i128, CodecError> {
        Ok(i128::from_be_bytes(self.array()?))
    }

    /// A count of elements that take at least `min_bytes` each, checked against what is left: nothing is allocated by
    /// a number off the wire.
    pub fn count(&mut self, min_bytes: usize) -> Result<usize, CodecError> {
        let n = self.u32()? as usize;
        if n.saturating_mul(min_bytes.max(1)) > self.bytes.len() - self.at {
            return Err(CodecError::Truncated { what: self.what, at: self.bytes.len() });
        }
        Ok(n)
    }

    pub fn bytes(&mut self) -> Result<Bytes, CodecError> {
        let n = self.count(1)?;
        self.take(n)
    }

    pub fn opt_bytes(&mut self) -> Result<Option<Bytes>, CodecError> {
        Ok(if self.flag()? { Some(self.bytes()?) } else { None })
    }

    pub fn opt_i64(&mut self) -> Result<Option<i64>, CodecError> {
        Ok(if self.flag()? { Some(self.i64()?) } else { None })
    }

    pub fn string(&mut self) -> Result<String, CodecError> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes.into()).map_err(|e| self.malformed(e))
    }

    fn flag(&mut self) -> Result<bool, CodecError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.malformed(format!("flag {other}"))),
        }
    }

    pub fn version(&mut self, known: u16) -> Result<(), CodecError> {
        let found = self.u16()?;
        if found != known {
            return Err(CodecError::Version { what: self.what, found, known });
        }
        Ok(())
    }

    pub fn rest(&mut self) -> Bytes {
        let rest = self.bytes.slice(self.at..);
        self.at = self.bytes.len();
        rest
    }

    pub fn end(&self) -> Result<(), CodecError> {
        if self.at != self.bytes.len() {
            return Err(self.malformed(format!("{} bytes too many", self.bytes.len() - self.at)));
        }
        Ok(())
    }

    pub fn malformed(&self, why: impl ToString) -> CodecError {
        CodecError::Malformed { what: self.what, why: why.to_string() }
    }
}
