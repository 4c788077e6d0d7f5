//! The wire's primitive types, for the messages that are encoded by hand.

use bytes::{Buf, BufMut, BytesMut};
use kafka_protocol::protocol::StrBytes;

use crate::request::Malformed;

pub(crate) fn put_unsigned_varint(buf: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        buf.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    buf.put_u8(value as u8);
}

pub(crate) fn unsigned_varint(buf: &mut impl Buf) -> Result<u32, Malformed> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let byte = buf.try_get_u8()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(value).map_err(|_| Malformed::new("varint past 32 bits"));
        }
    }
    Err(Malformed::new("varint of more than 5 bytes"))
}

pub(crate) fn put_nullable_string(buf: &mut BytesMut, value: Option<&StrBytes>, compact: bool) {
    let len = value.map_or(0, |s| s.len());
    assert!(len < i16::MAX as usize, "string of {len} bytes");
    match (compact, value) {
        (true, None) => buf.put_u8(0),
        (true, Some(_)) => put_unsigned_varint(buf, len as u32 + 1),
        (false, None) => buf.put_i16(-1),
        (false, Some(_)) => buf.put_i16(len as i16),
    }
    if let Some(value) = value {
        buf.put_slice(value.as_bytes());
    }
}

pub(crate) fn nullable_string(buf: &mut impl Buf, compact: bool) -> Result<Option<StrBytes>, Malformed> {
    let len = if compact { i64::from(unsigned_varint(buf)?) - 1 } else { i64::from(buf.try_get_i16()?) };
    if len == -1 {
        return Ok(None);
    }
    let len = usize::try_from(len).map_err(|_| Malformed::new("string of negative length"))?;
    if len > buf.remaining() {
        return Err(Malformed::new("string longer than its frame"));
    }
    let bytes = buf.copy_to_bytes(len);
    StrBytes::from_utf8(bytes).map(Some).map_err(|_| Malformed::new("string is not UTF-8"))
}

pub(crate) fn skip_tagged_fields(buf: &mut impl Buf) -> Result<(), Malformed> {
    for _ in 0..unsigned_varint(buf)? {
        let _tag = unsigned_varint(buf)?;
        let size = unsigned_varint(buf)? as usize;
        if size > buf.remaining() {
            return Err(Malformed::new("tagged field longer than its frame"));
        }
        buf.advance(size);
    }
    Ok(())
}
