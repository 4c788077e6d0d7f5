//! Compression of a batch's records, read through bounds: a few kilobytes may claim to be gigabytes.
//!
//! | codec | as Kafka writes it |
//! |--|--|
//! | gzip | one or more members |
//! | snappy | xerial's framing of raw blocks from Java clients, one raw block from librdkafka |
//! | lz4 | the frame format |
//! | zstd | one or more frames, windows up to 8 MiB |

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Read, Write};

use bytes::Bytes;

use super::BatchError;

/// How the records of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Compression {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// What reading a batch may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one batch's records after decompression.
    pub max_decompressed_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_decompressed_bytes: 64 * 1024 * 1024 }
    }
}

/// Frames that want more memory for their window are refused: zstd allocates it by the header's word. Levels up to 19
/// stay within.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

thread_local! {
    /// zstd's contexts are some hundred kilobytes each, more than most batches: a thread keeps one of either kind.
    static ZSTD_ENCODER: RefCell<zstd::zstd_safe::CCtx<'static>> = RefCell::new(zstd::zstd_safe::CCtx::create());
    static ZSTD_DECODER: RefCell<zstd::zstd_safe::DCtx<'static>> = RefCell::new(zstd::zstd_safe::DCtx::create());
}

const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
/// Magic, version and compatible version.
const XERIAL_HEADER_LEN: usize = 16;
/// Uncompressed bytes in each of our xerial blocks, the Java client's default.
const XERIAL_BLOCK: usize = 32 * 1024;

impl Compression {
    pub(super) fn from_bits(bits: u8) -> Result<Self, BatchError> {
        Ok(match bits {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            other => return Err(BatchError::UnknownCompression(other)),
        })
    }

    pub(super) fn bits(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    fn failed(self, e: impl fmt::Display) -> BatchError {
        BatchError::Decompress { compression: self, reason: e.to_string() }
    }

    /// The bytes that `data` was compressed from; without compression, `data` itself.
    pub(super) fn decompress(self, data: &Bytes, limits: &Limits) -> Result<Bytes, BatchError> {
        let max = limits.max_decompressed_bytes;
        match self {
            Self::None if data.len() > max => Err(BatchError::TooLarge { max }),
            Self::None => Ok(data.clone()),
            Self::Gzip => self.read_all(flate2::read::MultiGzDecoder::new(&data[..]), max),
            Self::Snappy => self.snappy(data, max),
            Self::Lz4 => self.read_all(lz4_flex::frame::FrameDecoder::new(&data[..]), max),
            Self::Zstd => ZSTD_DECODER.with_borrow_mut(|context| {
                let mut decoder = zstd::stream::read::Decoder::with_context(&data[..], context);
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|e| self.failed(e))?;
                self.read_all(decoder, max)
            }),
        }
    }

    fn read_all(self, reader: impl Read, max: usize) -> Result<Bytes, BatchError> {
        let mut out = Vec::new();
        let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
        reader.take(limit).read_to_end(&mut out).map_err(|e| self.failed(e))?;
        if out.len() > max { Err(BatchError::TooLarge { max }) } else { Ok(Bytes::from(out)) }
    }

    fn snappy(self, data: &[u8], max: usize) -> Result<Bytes, BatchError> {
        let mut out = Vec::new();
        let mut block = |compressed: &[u8]| -> Result<(), BatchError> {
            let len = snap::raw::decompress_len(compressed).map_err(|e| self.failed(e))?;
            if len > max - out.len() {
                return Err(BatchError::TooLarge { max });
            }
            // A raw block shrinks to no less than 3 bytes for 64: a longer claim is a lie, and not worth memory.
            if len / 24 > compressed.len() {
                return Err(self.failed("claimed length is impossible"));
            }
            let start = out.len();
            out.resize(start + len, 0);
            let written =
                snap::raw::Decoder::new().decompress(compressed, &mut out[start..]).map_err(|e| self.failed(e))?;
            if written == len { Ok(()) } else { Err(self.failed("block of another length than claimed")) }
        };
        if !data.starts_with(XERIAL_MAGIC) {
            block(data)?;
            return Ok(Bytes::from(out));
        }
        let mut rest = data.get(XERIAL_HEADER_LEN..).ok_or_else(|| self.failed("xerial header cut short"))?;
        while !rest.is_empty() {
            let (len, tail) = rest.split_first_chunk::<4>().ok_or_else(|| self.failed("xerial block cut short"))?;
            let len = u32::from_be_bytes(*len) as usize;
            let (compressed, tail) = tail.split_at_checked(len).ok_or_else(|| self.failed("xerial block cut short"))?;
            block(compressed)?;
            rest = tail;
        }
        Ok(Bytes::from(out))
    }

    /// Compresses to memory.
    pub(super) fn compress(self, data: &[u8]) -> Vec<u8> {
        let written: io::Result<Vec<u8>> = match self {
            Self::None => Ok(data.to_vec()),
            Self::Gzip => {
                let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                w.write_all(data).and_then(|()| w.finish())
            }
            Self::Snappy => {
                let mut out = XERIAL_MAGIC.to_vec();
                out.extend_from_slice(&1i32.to_be_bytes());
                out.extend_from_slice(&1i32.to_be_bytes());
                let mut encoder = snap::raw::Encoder::new();
                data.chunks(XERIAL_BLOCK)
                    .try_for_each(|chunk| {
                        let block = encoder.compress_vec(chunk).map_err(io::Error::other)?;
                        out.extend_from_slice(&(block.len() as u32).to_be_bytes());
                        out.extend_from_slice(&block);
                        Ok(())
                    })
                    .map(|()| out)
            }
            Self::Lz4 => {
                let mut w = lz4_flex::frame::FrameEncoder::new(Vec::new());
                w.write_all(data).and_then(|()| w.finish().map_err(io::Error::other))
            }
            Self::Zstd => ZSTD_ENCODER.with_borrow_mut(|context| {
                let mut w = zstd::stream::write::Encoder::with_context(Vec::new(), context);
                w.write_all(data).and_then(|()| w.finish())
            }),
        };
        written.expect("writing to memory does not fail")
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    #[test]
    fn round_trips_of_many_lengths() {
        for codec in ALL {
            for len in [0usize, 1, 100, XERIAL_BLOCK, XERIAL_BLOCK + 1, 200_000] {
                let data: Vec<u8> = (0..len).map(|i| (i * i / 7) as u8).collect();
                let compressed = Bytes::from(codec.compress(&data));
                let limits = Limits { max_decompressed_bytes: len };
                assert_eq!(codec.decompress(&compressed, &limits).unwrap(), data, "{codec} {len}");
                if len > 0 {
                    let limits = Limits { max_decompressed_bytes: len - 1 };
                    let err = BatchError::TooLarge { max: len - 1 };
                    assert_eq!(codec.decompress(&compressed, &limits), Err(err), "{codec} {len}");
                }
            }
        }
    }

    #[test]
    fn one_raw_snappy_block_as_librdkafka_writes_it() {
        let data = vec![7u8; 5_000];
        let raw = Bytes::from(snap::raw::Encoder::new().compress_vec(&data).unwrap());
        assert_eq!(Compression::Snappy.decompress(&raw, &Limits::default()).unwrap(), data);
    }

    #[test]
    fn a_snappy_block_that_lies_about_its_length_costs_nothing() {
        // Length 2^30 as a varint, then nothing.
        let lie = Bytes::from_static(&[0x80, 0x80, 0x80, 0x80, 0x04]);
        let limits = Limits { max_decompressed_bytes: usize::MAX };
        assert!(Compression::Snappy.decompress(&lie, &limits).is_err());
    }

    #[test]
    fn garbage_is_an_error() {
        let garbage = Bytes::from_static(b"this is no compressed block at all");
        for codec in &ALL[1..] {
            assert!(codec.decompress(&garbage, &Limits::default()).is_err(), "{codec}");
        }
        assert!(Compression::from_bits(5).is_err());
    }
}
