//! One record batch of format 2, as the Kafka protocol's text lays it out.
//!
//! ```text
//! 0 baseOffset i64 | 8 batchLength i32 | 12 partitionLeaderEpoch i32 | 16 magic i8 | 17 crc u32 | 21 attributes i16
//! 23 lastOffsetDelta i32 | 27 baseTimestamp i64 | 35 maxTimestamp i64 | 43 producerId i64 | 51 producerEpoch i16
//! 53 baseSequence i32 | 57 records i32 | 61 ...          crc is CRC-32C of everything from byte 21
//! attributes: 0-2 compression, 3 timestamp type, 4 transactional, 5 control
//! ```

use std::cell::RefCell;
use std::io::Read;

use bytes::Bytes;
use history::{Blob, Control, Header, LogRecord};

use super::crc32c::crc32c;
use super::varint::Cursor;

/// No batch of ours is nearly as large once decompressed.
const MAX_DECOMPRESSED: u64 = 64 << 20;

pub(super) struct Batch {
    pub base_offset: i64,
    pub last_offset: i64,
    /// Bytes on disk.
    pub len: usize,
}

/// Decodes the batch at the start of `bytes` and appends its records, which share memory with it; none of them if
/// anything is wrong.
pub(super) fn decode(bytes: &Bytes, records: &mut Vec<LogRecord>) -> Result<Batch, String> {
    let before = records.len();
    let batch = decode_whole(bytes, records);
    if batch.is_err() {
        records.truncate(before);
    }
    batch
}

fn decode_whole(bytes: &Bytes, records: &mut Vec<LogRecord>) -> Result<Batch, String> {
    let mut head = Cursor(bytes);
    let base_offset = head.i64()?;
    let length = head.i32()?;
    let len = usize::try_from(length).ok().and_then(|n| n.checked_add(12)).ok_or_else(|| format!("length {length}"))?;
    if len < 61 {
        return Err(format!("length {length} is shorter than a header"));
    }
    if len > bytes.len() {
        return Err(format!("torn: {len} bytes long, {} on disk", bytes.len()));
    }
    let leader_epoch = head.i32()?;
    let magic = head.i8()?;
    if magic != 2 {
        return Err(format!("magic {magic}"));
    }
    let crc = head.u32()?;
    let computed = crc32c(&bytes[21..len]);
    if crc != computed {
        return Err(format!("checksum {crc:08x}, computed {computed:08x}"));
    }
    let attributes = head.i16()?;
    let last_delta = head.i32()?;
    let base_timestamp = head.i64()?;
    let max_timestamp = head.i64()?;
    let producer_id = head.i64()?;
    let producer_epoch = head.i16()?;
    let base_sequence = head.i32()?;
    let count = head.i32()?;
    if last_delta < 0 || count < 0 {
        return Err(format!("last offset delta {last_delta}, {count} records"));
    }
    let body = decompress(attributes & 7, bytes.slice(61..len))?;
    let mut cursor = Cursor(&body);
    let log_append_time = attributes & 8 != 0;
    let (transactional, control) = (attributes & 16 != 0, attributes & 32 != 0);
    let blob = |part: &[u8]| Blob(body.slice_ref(part));
    let mut last = -1;
    for _ in 0..count {
        let size = cursor.varint()?;
        let mut record = Cursor(cursor.take(usize::try_from(size).map_err(|_| format!("record of {size} bytes"))?)?);
        let _attributes = record.i8()?;
        let timestamp_delta = record.varint()?;
        let offset_delta = record.varint()?;
        if offset_delta <= last || offset_delta > i64::from(last_delta) {
            return Err(format!("record at offset delta {offset_delta} after {last}, batch ends at {last_delta}"));
        }
        last = offset_delta;
        let key = record.bytes()?;
        let value = record.bytes()?;
        let header_count = record.varint()?;
        let mut headers = Vec::with_capacity(header_count.clamp(0, 8) as usize);
        for _ in 0..header_count {
            let name = record.bytes()?.ok_or("header without a name")?;
            headers.push(Header {
                key: std::str::from_utf8(name).map(|_| blob(name)).map_err(|_| "header name is not UTF-8")?,
                value: record.bytes()?.map(blob),
            });
        }
        if !record.0.is_empty() {
            return Err(format!("{} bytes after the last header of a record", record.0.len()));
        }
        records.push(LogRecord {
            offset: base_offset + offset_delta,
            leader_epoch,
            producer_id,
            producer_epoch,
            sequence: sequence(base_sequence, offset_delta),
            transactional,
            control: if control { Some(control_type(key)?) } else { None },
            timestamp_ms: if log_append_time { max_timestamp } else { base_timestamp + timestamp_delta },
            key: key.map(blob),
            value: value.map(blob),
            headers,
        });
    }
    if !cursor.0.is_empty() {
        return Err(format!("{} bytes after the last record", cursor.0.len()));
    }
    Ok(Batch { base_offset, last_offset: base_offset + i64::from(last_delta), len })
}

/// Sequences wrap from 2^31 - 1 to 0; -1 stays.
fn sequence(base: i32, delta: i64) -> i32 {
    match base {
        -1 => -1,
        _ => ((i64::from(base) + delta) % (1 << 31)) as i32,
    }
}

/// Key of a control record: version i16, type i16 (0 abort, 1 commit; 2 to 6 of the metadata log: leader change, snapshot
/// header and footer, kraft version, voters).
fn control_type(key: Option<&[u8]>) -> Result<Control, String> {
    let mut key = Cursor(key.ok_or("control record without a key")?);
    let _version = key.i16()?;
    match key.i16()? {
        0 => Ok(Control::Abort),
        1 => Ok(Control::Commit),
        2..=6 => Ok(Control::Quorum),
        other => Err(format!("control record of type {other}")),
    }
}

fn decompress(codec: i16, body: Bytes) -> Result<Bytes, String> {
    let body = match codec {
        0 => return Ok(body),
        _ => &body[..],
    };
    let reader: Box<dyn Read + '_> = match codec {
        1 => Box::new(flate2::read::MultiGzDecoder::new(body)),
        2 => return snappy(body).map(Bytes::from),
        3 => Box::new(lz4_flex::frame::FrameDecoder::new(body)),
        4 => return zstd(body).map(Bytes::from),
        other => return Err(format!("compression {other}")),
    };
    read_all(reader).map(Bytes::from)
}

fn read_all(reader: impl Read) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    reader.take(MAX_DECOMPRESSED).read_to_end(&mut out).map_err(|e| format!("failed to decompress: {e}"))?;
    Ok(out)
}

/// One context a thread: making one costs more than decompressing a batch.
fn zstd(body: &[u8]) -> Result<Vec<u8>, String> {
    thread_local! {
        static CONTEXT: RefCell<zstd::zstd_safe::DCtx<'static>> = RefCell::new(zstd::zstd_safe::DCtx::create());
    }
    CONTEXT.with_borrow_mut(|context| read_all(zstd::stream::read::Decoder::with_context(body, context)))
}

/// Snappy is either one raw block or the chunks of the Java library behind its magic.
fn snappy(body: &[u8]) -> Result<Vec<u8>, String> {
    let raw = |block: &[u8]| snap::raw::Decoder::new().decompress_vec(block).map_err(|e| e.to_string());
    let Some(chunks) = body.strip_prefix(b"\x82SNAPPY\0") else { return raw(body) };
    let mut cursor = Cursor(chunks);
    cursor.take(8)?;
    let mut out = Vec::new();
    while !cursor.0.is_empty() {
        let n = cursor.i32()?;
        out.extend(raw(cursor.take(usize::try_from(n).map_err(|_| format!("chunk of {n} bytes"))?)?)?);
    }
    Ok(out)
}
