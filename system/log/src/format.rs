//! The envelope of every file beside the batches: a magic word, a version, a length and a CRC, so that a lost, short,
//! torn or rotten file is told from a good one and rebuilt.
//!
//! ```text
//! 0   4      8        10       12            16        20
//! | "SPLG" | kind 4 | ver u16 | 0 u16 | length u32 | crc32c u32 | payload …       (little endian)
//! ```

use std::path::Path;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use env::disk::{self, File, Open};

use crate::LogError;

const MAGIC: &[u8; 4] = b"SPLG";
const HEADER: usize = 20;

/// What a file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kind {
    pub tag: [u8; 4],
    pub version: u16,
}

pub(crate) fn seal(kind: Kind, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER + payload.len());
    out.put_slice(MAGIC);
    out.put_slice(&kind.tag);
    out.put_u16_le(kind.version);
    out.put_u16_le(0);
    out.put_u32_le(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out), payload);
    out.put_u32_le(crc);
    out.put_slice(payload);
    out.freeze()
}

/// Version and payload; `None` if the bytes are not a whole envelope of this kind; an error only for a good envelope of a
/// later version.
pub(crate) fn unseal(kind: Kind, path: &Path, mut bytes: Bytes) -> Result<Option<(u16, Bytes)>, LogError> {
    if bytes.len() < HEADER || &bytes[..4] != MAGIC || bytes[4..8] != kind.tag {
        return Ok(None);
    }
    let head = bytes.slice(..HEADER - 4);
    bytes.advance(8);
    let version = bytes.get_u16_le();
    let _reserved = bytes.get_u16_le();
    let length = bytes.get_u32_le() as usize;
    let crc = bytes.get_u32_le();
    if bytes.len() != length || crc32c::crc32c_append(crc32c::crc32c(&head), &bytes) != crc {
        return Ok(None);
    }
    if version == 0 || version > kind.version {
        return Err(LogError::Unsupported { path: path.to_owned(), version });
    }
    Ok(Some((version, bytes)))
}

/// The payload of the file at `path`, `None` if it is missing or not whole.
pub(crate) async fn load(kind: Kind, path: &Path) -> Result<Option<Bytes>, LogError> {
    Ok(load_version(kind, path).await?.map(|(_, payload)| payload))
}

/// [`load`] of a kind that has earlier versions, and which of them it is.
pub(crate) async fn load_version(kind: Kind, path: &Path) -> Result<Option<(u16, Bytes)>, LogError> {
    match disk::read(path).await {
        Ok(bytes) => unseal(kind, path, bytes),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(LogError::storage("read", path)(e)),
    }
}

/// Writes the file in place: a torn result is told by its CRC, so no rename is needed.
pub(crate) async fn store(kind: Kind, path: &Path, payload: &[u8], sync: bool) -> Result<(), LogError> {
    let bytes = seal(kind, payload);
    let file = File::open(path, Open::OrCreate).await.map_err(LogError::write("create", path))?;
    file.set_len(0).await.map_err(LogError::write("truncate", path))?;
    file.write_at(0, bytes).await.map_err(LogError::write("write", path))?;
    if sync {
        file.sync().await.map_err(LogError::storage("sync", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind { tag: *b"TEST", version: 1 };

    #[test]
    fn any_torn_or_flipped_byte_is_told() {
        let sealed = seal(KIND, b"some payload");
        let path = Path::new("x");
        let (version, payload) = unseal(KIND, path, sealed.clone()).unwrap().unwrap();
        assert_eq!((version, payload.as_ref()), (1, &b"some payload"[..]));
        for cut in 0..sealed.len() {
            assert!(unseal(KIND, path, sealed.slice(..cut)).unwrap().is_none(), "cut at {cut}");
            let mut flipped = sealed.to_vec();
            flipped[cut] ^= 1;
            assert!(!matches!(unseal(KIND, path, flipped.into()), Ok(Some(_))), "flip at {cut}");
        }
    }

    #[test]
    fn a_later_version_is_an_error_not_a_rebuild() {
        let later = seal(Kind { version: 2, ..KIND }, b"");
        assert!(matches!(unseal(KIND, Path::new("x"), later), Err(LogError::Unsupported { version: 2, .. })));
    }
}
