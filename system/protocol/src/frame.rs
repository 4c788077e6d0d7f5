//! Frames: a 4-byte big-endian length, then that many bytes. The decoder holds at most one frame more than it was fed,
//! and refuses a length it was not built for before it reserves memory for it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What a peer did wrong; the connection cannot be used any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame of {len} bytes, at most {max} allowed")]
    TooLarge { len: u32, max: u32 },
    #[error("frame of negative length {0}")]
    Negative(i32),
}

/// Turns the bytes of a connection into frames.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: BytesMut,
    max_bytes: u32,
}

impl FrameDecoder {
    /// `max_bytes` bounds a frame without its length prefix.
    pub fn new(max_bytes: u32) -> Self {
        Self { buffer: BytesMut::new(), max_bytes }
    }

    /// Appends bytes that were read.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// For reading from a socket straight into the decoder, with `AsyncReadExt::read_buf`. It always has room to
    /// read into; the room is of a read's size, or that of the frame announced, once it is known to be allowed.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        const READ: usize = 16 * 1024;
        let missing = match self.announced() {
            Ok(Some(len)) => (len as usize + 4).saturating_sub(self.buffer.len()),
            _ => 0,
        };
        // A length alone reserves little: the peer must send most of a large frame before it costs that memory.
        self.buffer.reserve(missing.clamp(READ, READ.max(self.buffer.len())));
        &mut self.buffer
    }

    /// Bytes held that are not yet part of a returned frame.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    fn announced(&self) -> Result<Option<u32>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let len = i32::from_be_bytes(*prefix);
        let len = u32::try_from(len).map_err(|_| FrameError::Negative(len))?;
        if len > self.max_bytes {
            return Err(FrameError::TooLarge { len, max: self.max_bytes });
        }
        Ok(Some(len))
    }

    /// The next whole frame without its prefix, `None` until more bytes come.
    #[expect(clippy::should_implement_trait, reason = "a fallible step of a decoder, not an iterator")]
    pub fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(len) = self.announced()? else { return Ok(None) };
        let len = len as usize;
        if self.buffer.len() < 4 + len {
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(len).freeze()))
    }
}

/// Writes what `body` writes as one frame, length first. If `body` fails, `buf` is as it was.
pub fn put_frame<E>(buf: &mut BytesMut, body: impl FnOnce(&mut BytesMut) -> Result<(), E>) -> Result<(), E> {
    let start = buf.len();
    buf.put_i32(0);
    if let Err(e) = body(buf) {
        buf.truncate(start);
        return Err(e);
    }
    let len = i32::try_from(buf.len() - start - 4).expect("a frame of our own is below 2 GiB");
    buf[start..start + 4].copy_from_slice(&len.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_they_arrive() {
        let mut stream = BytesMut::new();
        for body in [&b"one"[..], b"", b"three"] {
            put_frame::<()>(&mut stream, |b| {
                b.put_slice(body);
                Ok(())
            })
            .unwrap();
        }
        for step in 1..=stream.len() {
            let mut decoder = FrameDecoder::new(5);
            let mut got = Vec::new();
            for piece in stream.chunks(step) {
                decoder.feed(piece);
                while let Some(frame) = decoder.next().unwrap() {
                    got.push(frame);
                }
            }
            assert_eq!(got, [&b"one"[..], b"", b"three"]);
            assert_eq!(decoder.buffered(), 0);
        }
    }

    #[test]
    fn refuses_lengths_it_was_not_built_for() {
        let mut decoder = FrameDecoder::new(100);
        decoder.feed(&101i32.to_be_bytes());
        assert_eq!(decoder.next(), Err(FrameError::TooLarge { len: 101, max: 100 }));
        let mut decoder = FrameDecoder::new(100);
        decoder.feed(&(-1i32).to_be_bytes());
        assert_eq!(decoder.next(), Err(FrameError::Negative(-1)));
    }

    #[test]
    fn an_announced_length_alone_reserves_little() {
        let mut decoder = FrameDecoder::new(i32::MAX as u32);
        decoder.feed(&i32::MAX.to_be_bytes());
        assert!(decoder.buffer_mut().capacity() < 64 * 1024);
    }

    #[test]
    fn a_failed_body_leaves_no_trace() {
        let mut buf = BytesMut::from(&b"x"[..]);
        let r = put_frame(&mut buf, |b| {
            b.put_u8(1);
            Err("no")
        });
        assert_eq!((r, &buf[..]), (Err("no"), &b"x"[..]));
    }
}
