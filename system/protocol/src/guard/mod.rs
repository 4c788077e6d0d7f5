//! A walk over a message's bytes before the `kafka-protocol` crate decodes them.
//!
//! The crate's decoders reserve memory for as many elements as an array's count on the wire says: seven bytes may ask
//! for gigabytes. The walk follows the message's layout ([`schema`]) and finds every count larger than the bytes left,
//! every length past the end, and every known tagged field whose size is not that of its value. It allocates nothing
//! and takes time linear in the frame. What passes it costs the crate at most a small multiple of the frame.

mod schema;

pub(crate) use schema::{WRITE_TXN_MARKERS_REQUEST, WRITE_TXN_MARKERS_RESPONSE};

use crate::request::Malformed;

/// How a field lies on the wire.
#[derive(Debug, Clone, Copy)]
enum Kind {
    I8,
    I16,
    I32,
    I64,
    Id,
    /// A string; null is let through for the crate to judge.
    Text,
    /// Bytes or records, likewise.
    Blob,
    Array(&'static Kind),
    Struct(&'static [Field]),
    /// A struct or null: a byte says which.
    Maybe(&'static [Field]),
}

/// A field of some versions, or a tagged field from a version on.
#[derive(Debug, Clone, Copy)]
struct Field {
    from: i16,
    to: i16,
    tag: Option<u32>,
    kind: Kind,
}

/// A message's fields.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    /// From this version on strings, bytes and arrays are compact and each struct ends with tagged fields; `i16::MAX` if
    /// none does.
    flexible_from: i16,
    fields: &'static [Field],
}

/// A message of the `kafka-protocol` crate whose layout is in [`schema`].
pub(crate) trait Known {
    const LAYOUT: Layout;
}

const fn all(kind: Kind) -> Field {
    Field { from: 0, to: i16::MAX, tag: None, kind }
}

const fn from(from: i16, kind: Kind) -> Field {
    Field { from, to: i16::MAX, tag: None, kind }
}

const fn only(from: i16, to: i16, kind: Kind) -> Field {
    Field { from, to, tag: None, kind }
}

const fn tag(tag: u32, from: i16, kind: Kind) -> Field {
    Field { from, to: i16::MAX, tag: Some(tag), kind }
}

/// Checks a message's body.
pub(crate) fn check(layout: &Layout, version: i16, body: &[u8]) -> Result<(), Malformed> {
    Walk { left: body, version, flexible: version >= layout.flexible_from }.fields(layout.fields)
}

struct Walk<'a> {
    left: &'a [u8],
    version: i16,
    flexible: bool,
}

impl Walk<'_> {
    fn skip(&mut self, n: usize) -> Result<(), Malformed> {
        match self.left.split_at_checked(n) {
            Some((_, left)) => {
                self.left = left;
                Ok(())
            }
            None => Err(Malformed::new(format!("{n} bytes wanted, {} left", self.left.len()))),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, left) = self.left.split_first_chunk().ok_or_else(|| Malformed::new("cut short"))?;
        self.left = left;
        Ok(*bytes)
    }

    fn unsigned_varint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| Malformed::new("varint past 32 bits"));
            }
        }
        Err(Malformed::new("varint of more than 5 bytes"))
    }

    /// A length or count, `None` for null. Short lengths are of strings.
    fn length(&mut self, short: bool) -> Result<Option<usize>, Malformed> {
        if self.flexible {
            return Ok((self.unsigned_varint()? as usize).checked_sub(1));
        }
        let len = if short { i32::from(i16::from_be_bytes(self.array()?)) } else { i32::from_be_bytes(self.array()?) };
        match len {
            -1 => Ok(None),
            len => usize::try_from(len).map(Some).map_err(|_| Malformed::new(format!("length {len}"))),
        }
    }

    fn value(&mut self, kind: &Kind) -> Result<(), Malformed> {
        match kind {
            Kind::I8 => self.skip(1),
            Kind::I16 => self.skip(2),
            Kind::I32 => self.skip(4),
            Kind::I64 => self.skip(8),
            Kind::Id => self.skip(16),
            Kind::Text | Kind::Blob => {
                let len = self.length(matches!(kind, Kind::Text))?;
                self.skip(len.unwrap_or(0))
            }
            Kind::Array(element) => {
                let count = self.length(false)?.unwrap_or(0);
                // Every element takes a byte at least; the walk over them finds the rest.
                if count > self.left.len() {
                    return Err(Malformed::new(format!("array of {count} elements in {} bytes", self.left.len())));
                }
                (0..count).try_for_each(|_| self.value(element))
            }
            Kind::Struct(fields) => self.fields(fields),
            Kind::Maybe(fields) => match self.array()? {
                [1] => self.fields(fields),
                _ => Ok(()),
            },
        }
    }

    fn fields(&mut self, fields: &[Field]) -> Result<(), Malformed> {
        let version = self.version;
        let present = |f: &&Field| f.from <= version && version <= f.to;
        for field in fields.iter().filter(present).filter(|f| f.tag.is_none()) {
            self.value(&field.kind)?;
        }
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.unsigned_varint()? {
            let tag = self.unsigned_varint()?;
            let size = self.unsigned_varint()? as usize;
            let known = fields.iter().filter(present).find(|f| f.tag == Some(tag));
            match known {
                None => self.skip(size)?,
                Some(field) => {
                    let before = self.left.len();
                    self.value(&field.kind)?;
                    if before - self.left.len() != size {
                        return Err(Malformed::new(format!("tagged field {tag} is not of its size {size}")));
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, Bytes, BytesMut};
    use proptest::prelude::*;
    use proptest::test_runner::TestRng;

    use super::*;
    use crate::{ApiKey, RequestBody, ResponseBody, api};

    /// Writes random bytes that the layout allows.
    struct Make<'a> {
        out: BytesMut,
        rng: &'a mut TestRng,
        version: i16,
        flexible: bool,
    }

    impl Make<'_> {
        fn length(&mut self, n: usize, short: bool) {
            match (self.flexible, short) {
                (true, _) => self.out.put_u8(n as u8 + 1),
                (false, true) => self.out.put_i16(n as i16),
                (false, false) => self.out.put_i32(n as i32),
            }
        }

        fn value(&mut self, kind: &Kind) {
            let fixed = match kind {
                Kind::I8 => 1,
                Kind::I16 => 2,
                Kind::I32 => 4,
                Kind::I64 => 8,
                Kind::Id => 16,
                Kind::Text | Kind::Blob => {
                    let n = (self.rng.next_u32() % 5) as usize;
                    self.length(n, matches!(kind, Kind::Text));
                    return self.out.put_bytes(b'x', n);
                }
                Kind::Array(element) => {
                    let n = (self.rng.next_u32() % 3) as usize;
                    self.length(n, false);
                    return (0..n).for_each(|_| self.value(element));
                }
                Kind::Struct(fields) => return self.fields(fields),
                Kind::Maybe(fields) => {
                    let present = self.rng.next_u32().is_multiple_of(2);
                    self.out.put_i8(if present { 1 } else { -1 });
                    if present {
                        self.fields(fields);
                    }
                    return;
                }
            };
            let mut bytes = vec![0; fixed];
            self.rng.fill_bytes(&mut bytes);
            self.out.put_slice(&bytes);
        }

        fn fields(&mut self, fields: &[Field]) {
            let version = self.version;
            let present: Vec<_> = fields.iter().filter(|f| f.from <= version && version <= f.to).collect();
            for f in present.iter().filter(|f| f.tag.is_none()) {
                self.value(&f.kind);
            }
            if !self.flexible {
                return;
            }
            let tagged: Vec<_> = present.iter().filter(|f| f.tag.is_some()).collect();
            let some = &tagged[..self.rng.next_u32() as usize % (tagged.len() + 1)];
            self.out.put_u8(some.len() as u8);
            for f in some {
                let outer = std::mem::take(&mut self.out);
                self.value(&f.kind);
                let value = std::mem::replace(&mut self.out, outer);
                if value.len() > 127 {
                    // One-byte sizes are enough here: leave this value out by giving an unknown tag instead.
                    self.out.put_slice(&[100, 0]);
                    continue;
                }
                self.out.put_u8(f.tag.unwrap_or(0) as u8);
                self.out.put_u8(value.len() as u8);
                self.out.put_slice(&value);
            }
        }
    }

    fn make(message: &Layout, version: i16, rng: &mut TestRng) -> Bytes {
        let mut make = Make { out: BytesMut::new(), rng, version, flexible: version >= message.flexible_from };
        make.fields(message.fields);
        make.out.freeze()
    }

    /// Random bytes of each layout: the crate takes them for the message, to the last byte. So table and crate agree.
    #[test]
    fn layouts_agree_with_the_crate() {
        let mut rng = TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
        for &api in api::ALL {
            let range = api::versions(api).unwrap();
            for version in range.min..=range.max {
                for _ in 0..20 {
                    if let Some(message) = RequestBody::layout(api) {
                        let mut bytes = make(message, version, &mut rng);
                        let body = RequestBody::decode(api, version, &mut bytes);
                        assert!(body.is_ok() && bytes.is_empty(), "{api:?} request v{version}: {body:?}");
                    }
                    if let Some(message) = ResponseBody::layout(api) {
                        let mut bytes = make(message, version, &mut rng);
                        let body = ResponseBody::decode(api, version, &mut bytes);
                        assert!(body.is_ok() && bytes.is_empty(), "{api:?} response v{version}: {body:?}");
                    }
                }
            }
        }
    }

    /// Whatever the walk lets through, the crate decodes without a panic; whatever is cut short, the walk refuses.
    #[test]
    fn cut_and_mutated_messages_never_panic() {
        let mut rng = TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
        for &api in api::ALL {
            let range = api::versions(api).unwrap();
            for version in range.min..=range.max {
                for _ in 0..50 {
                    for message in [RequestBody::layout(api), ResponseBody::layout(api)].into_iter().flatten() {
                        let whole = make(message, version, &mut rng);
                        if whole.is_empty() {
                            continue;
                        }
                        let at = rng.next_u32() as usize % whole.len();
                        assert!(check(message, version, &whole[..at]).is_err(), "{api:?} v{version} cut at {at}");
                        let mut bad = whole.to_vec();
                        bad[at] = rng.next_u32() as u8;
                        let _ = RequestBody::decode(api, version, &mut Bytes::from(bad.clone()));
                        let _ = ResponseBody::decode(api, version, &mut Bytes::from(bad));
                    }
                }
            }
        }
    }

    #[test]
    fn counts_past_the_end_are_refused() {
        let metadata = RequestBody::layout(ApiKey::Metadata).unwrap();
        // Metadata v0: an array of 2^31 - 1 topics, and nothing after it.
        assert!(check(metadata, 0, &[0x7f, 0xff, 0xff, 0xff]).is_err());
        // Metadata v9: the same in compact form.
        assert!(check(metadata, 9, &[0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
    }
}
