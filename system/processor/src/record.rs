//! A valid source record on its way to the window task that owns its key.

use bytes::Bytes;

use crate::codec::{CodecError, Reader, Writer};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub event_time_ms: i64,
    pub key: Bytes,
    pub value: Option<i64>,
    /// The source record's own bytes: a late record goes out as it came in.
    pub raw_key: Option<Bytes>,
    pub raw_value: Option<Bytes>,
}

impl Record {
    /// Fewest bytes one takes.
    pub const MIN_BYTES: usize = 27;

    pub fn write(&self, w: &mut Writer) {
        w.i32(self.partition);
        w.i64(self.offset);
        w.i64(self.event_time_ms);
        w.bytes(&self.key);
        w.opt_i64(self.value);
        w.opt_bytes(self.raw_key.as_deref());
        w.opt_bytes(self.raw_value.as_deref());
    }

    pub fn read(r: &mut Reader) -> Result<Self, CodecError> {
        Ok(Self {
            partition: r.i32()?,
            offset: r.i64()?,
            event_time_ms: r.i64()?,
            key: r.bytes()?,
            value: r.opt_i64()?,
            raw_key: r.opt_bytes()?,
            raw_value: r.opt_bytes()?,
        })
    }
}
