//! The sending end of a channel.

use std::net::SocketAddr;
use std::time::Duration;

use env::io::AsyncWriteExt;
use env::net::{ReadHalf, TcpStream, WriteHalf};
use env::sync::mpsc;

use super::{ChannelId, Incoming, Message, Reply, ShuffleError};
use crate::control::{self, FrameError, Generation};

#[derive(Debug)]
pub enum Outbound {
    Local(mpsc::Sender<Incoming>),
    Remote {
        generation: Generation,
        seq: u64,
        to: WriteHalf,
        /// Held so that the connection stays whole.
        _from: ReadHalf,
    },
}

impl Outbound {
    pub async fn connect(addr: SocketAddr, id: &ChannelId, timeout: Duration) -> Result<Self, ShuffleError> {
        let connected = env::time::timeout(timeout, async {
            let stream = TcpStream::connect(addr).await.map_err(ShuffleError::Connect)?;
            let (mut from, mut to) = stream.into_split();
            control::write_message(&mut to, id, &[]).await?;
            let (reply, _) = control::read_message(&mut from).await?;
            match reply {
                Reply::Accepted => Ok(Self::Remote { generation: id.generation, seq: 0, to, _from: from }),
                Reply::Refused => Err(ShuffleError::Refused(id.generation)),
            }
        });
        connected.await.unwrap_or(Err(ShuffleError::Timeout))
    }

    /// Returns once the message is in the channel. Not cancel safe: a dropped call may have sent half of it.
    pub async fn send(&mut self, message: Message) -> Result<(), ShuffleError> {
        match self {
            Self::Local(channel) => channel.send(Incoming::Message(message)).await.map_err(|_| ShuffleError::Closed),
            Self::Remote { generation, seq, to, .. } => {
                let frame = message.encode(*generation, *seq);
                *seq += 1;
                to.write_all(&frame).await.map_err(FrameError::Io)?;
                to.flush().await.map_err(FrameError::Io)?;
                Ok(())
            }
        }
    }
}
