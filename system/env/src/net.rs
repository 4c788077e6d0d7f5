//! TCP, as the field's code expects it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use world::port;

/// A listening socket. Dropping it resets connections that wait to be accepted.
#[derive(Debug)]
pub struct TcpListener(Listening);

#[derive(Debug)]
enum Listening {
    Real(tokio::net::TcpListener),
    Sim(port::Listener),
}

impl TcpListener {
    /// Listens on `addr`; port 0 lets the world choose.
    pub async fn bind(addr: SocketAddr) -> io::Result<Self> {
        Ok(Self(if port::active() {
            Listening::Sim(port::listen(addr).await?)
        } else {
            Listening::Real(tokio::net::TcpListener::bind(addr).await?)
        }))
    }

    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match &self.0 {
            Listening::Real(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((TcpStream(Connected::Real(stream)), peer))
            }
            Listening::Sim(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((TcpStream(Connected::Sim(stream)), peer))
            }
        }
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Listening::Real(listener) => listener.local_addr(),
            Listening::Sim(listener) => Ok(listener.local_addr()),
        }
    }
}

/// A connection. Use [`TcpStream::into_split`] for independent reading and writing.
#[derive(Debug)]
pub struct TcpStream(Connected);

#[derive(Debug)]
enum Connected {
    Real(tokio::net::TcpStream),
    Sim(port::Stream),
}

pub type ReadHalf = tokio::io::ReadHalf<TcpStream>;
pub type WriteHalf = tokio::io::WriteHalf<TcpStream>;

impl TcpStream {
    /// Connects, with no time-out but the world's own: wrap it in [`crate::time::timeout`].
    pub async fn connect(addr: SocketAddr) -> io::Result<Self> {
        if port::active() {
            return Ok(Self(Connected::Sim(port::connect(addr).await?)));
        }
        let stream = tokio::net::TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self(Connected::Real(stream)))
    }

    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Connected::Real(stream) => stream.peer_addr(),
            Connected::Sim(stream) => Ok(stream.peer_addr()),
        }
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Connected::Real(stream) => stream.local_addr(),
            Connected::Sim(stream) => Ok(stream.local_addr()),
        }
    }

    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        tokio::io::split(self)
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Connected::Real(stream) => Pin::new(stream).poll_read(cx, buf),
            Connected::Sim(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Connected::Real(stream) => Pin::new(stream).poll_write(cx, buf),
            Connected::Sim(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Connected::Real(stream) => Pin::new(stream).poll_flush(cx),
            Connected::Sim(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Connected::Real(stream) => Pin::new(stream).poll_shutdown(cx),
            Connected::Sim(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Resolves `host:port` to addresses, in the order the world gives them.
pub async fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if port::active() {
        return port::lookup(host, port).await;
    }
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}
