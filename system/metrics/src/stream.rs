//! `env`'s sockets as hyper reads and writes them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use env::io::{AsyncRead, AsyncWrite, ReadBuf, Result};
use env::net::TcpStream;
use hyper::rt::{Read, ReadBufCursor, Write};

/// Read through a piece on the stack: hyper's own buffer can only be lent out with unsafe code.
const PIECE: usize = 2048;

#[derive(Debug)]
pub struct HttpStream(pub TcpStream);

impl Read for HttpStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<Result<()>> {
        let mut piece = [0; PIECE];
        let mut read = ReadBuf::new(&mut piece[..PIECE.min(buf.remaining())]);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut read))?;
        buf.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for HttpStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
