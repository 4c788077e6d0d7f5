//! What travels on a channel.

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{CodecError, Reader, Writer};
use crate::control::Generation;
use crate::record::Record;
use crate::watermark::{Change, Watermark};

const VERSION: u8 = 1;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    Records(Vec<Record>),
    /// Of the sending task's W or status.
    Change(Change),
    Barrier(u64),
}

impl Message {
    /// A whole frame, length included.
    pub fn encode(&self, generation: Generation, seq: u64) -> Bytes {
        let mut w = Writer::new();
        w.u8(VERSION);
        w.u64(generation);
        w.u64(seq);
        match self {
            Self::Records(records) => {
                w.u8(0);
                w.count(records.len());
                for record in records {
                    record.write(&mut w);
                }
            }
            Self::Change(Change::Watermark(watermark)) => {
                w.u8(1);
                w.i64(watermark.as_ms());
            }
            Self::Change(Change::Idle) => w.u8(2),
            Self::Change(Change::Active) => w.u8(3),
            Self::Change(Change::End) => w.u8(4),
            Self::Barrier(n) => {
                w.u8(5);
                w.u64(*n);
            }
        }
        let content = w.finish();
        let length = u32::try_from(content.len()).unwrap_or_else(|_| panic!("message of {} bytes", content.len()));
        let mut frame = BytesMut::with_capacity(4 + content.len());
        frame.put_u32(length);
        frame.put_slice(&content);
        frame.freeze()
    }

    /// The content of a frame: generation, sequence, message.
    pub fn decode(content: Bytes) -> Result<(Generation, u64, Self), CodecError> {
        let mut r = Reader::new("channel message", content);
        let version = r.u8()?;
        if version != VERSION {
            return Err(CodecError::Version { what: "channel message", found: version.into(), known: VERSION.into() });
        }
        let (generation, seq) = (r.u64()?, r.u64()?);
        let message = match r.u8()? {
            0 => {
                let mut records = Vec::new();
                for _ in 0..r.count(Record::MIN_BYTES)? {
                    records.push(Record::read(&mut r)?);
                }
                Self::Records(records)
            }
            1 => Self::Change(Change::Watermark(Watermark::from_ms(r.i64()?))),
            2 => Self::Change(Change::Idle),
            3 => Self::Change(Change::Active),
            4 => Self::Change(Change::End),
            5 => Self::Barrier(r.u64()?),
            other => return Err(r.malformed(format!("kind {other}"))),
        };
        r.end()?;
        Ok((generation, seq, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_round_trip_and_cut_ones_are_errors() {
        let record = Record {
            partition: 3,
            offset: 1 << 40,
            event_time_ms: -9,
            key: Bytes::from_static(b"k"),
            value: Some(-1),
            raw_key: None,
            raw_value: Some(Bytes::from_static(b"{}")),
        };
        let all = [
            Message::Records(vec![record.clone(), Record { value: None, raw_value: None, ..record }]),
            Message::Records(vec![]),
            Message::Change(Change::Watermark(Watermark::MIN)),
            Message::Change(Change::Idle),
            Message::Change(Change::Active),
            Message::Change(Change::End),
            Message::Barrier(7),
        ];
        for message in all {
            let frame = message.encode(4, 5);
            let content = frame.slice(4..);
            assert_eq!(u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize, content.len());
            assert_eq!(Message::decode(content.clone()).unwrap(), (4, 5, message));
            for n in 0..content.len() {
                assert!(Message::decode(content.slice(..n)).is_err());
            }
        }
    }
}
