//! What a voter promised, on disk: the epoch it is in, whom it voted for there, and whether its votes count.
//!
//! `quorum-state` is replaced atomically and synced before any message that rests on it leaves the node.

use std::io;
use std::path::Path;

use bytes::Bytes;
use env::disk;
use protocol::Uuid;

use super::message::ReplicaKey;

/// The format of the file.
const VERSION: u32 = 1;
const FILE: &str = "quorum-state";

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct QuorumState {
    pub epoch: i32,
    /// Whom this replica voted for in `epoch`, itself included.
    pub voted: Option<ReplicaKey>,
    /// Whether it may vote: false from the first start on an empty disk until the quorum's past is known to be in its
    /// log.
    pub voting: bool,
}

impl QuorumState {
    /// The state in `dir`, `None` if it was never stored.
    pub async fn load(dir: &Path) -> io::Result<Option<Self>> {
        match disk::read(dir.join(FILE)).await {
            Ok(bytes) => Self::parse(&bytes)
                .map(Some)
                .map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, format!("{FILE}: {reason}"))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Durable on return.
    pub async fn store(&self, dir: &Path) -> io::Result<()> {
        disk::replace(dir.join(FILE), self.format()).await
    }

    fn format(&self) -> Bytes {
        let (id, directory) = self.voted.map_or((-1, Uuid::nil()), |v| (v.id, v.directory));
        let Self { epoch, voting, .. } = self;
        Bytes::from(format!(
            "data_version={VERSION}\nleader_epoch={epoch}\nvoted_id={id}\nvoted_directory_id={}\nvoting={voting}\n",
            directory.simple(),
        ))
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
        let field = |name: &str| {
            let of_line =
                |line: &'_ str| line.split_once('=').filter(|(key, _)| *key == name).map(|(_, v)| v.to_owned());
            text.lines().find_map(of_line).ok_or_else(|| format!("{name} is missing"))
        };
        let number = |name: &str| {
            let value = field(name)?;
            value.parse::<i32>().map_err(|_| format!("{name} is {value:?}"))
        };
        let version = field("data_version")?;
        if version != VERSION.to_string() {
            return Err(format!("version {version}, this broker reads version {VERSION}"));
        }
        let directory = field("voted_directory_id")?;
        let directory = Uuid::parse_str(&directory).map_err(|_| format!("voted_directory_id is {directory:?}"))?;
        let voted = Some(number("voted_id")?).filter(|id| *id >= 0).map(|id| ReplicaKey { id, directory });
        let voting = match field("voting")?.as_str() {
            "true" => true,
            "false" => false,
            other => return Err(format!("voting is {other:?}")),
        };
        Ok(Self { epoch: number("leader_epoch")?, voted, voting })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_round_trip_and_their_format_is_fixed() {
        let voted = Some(ReplicaKey { id: 2, directory: Uuid::from_u128(10) });
        for state in [QuorumState::default(), QuorumState { epoch: 7, voted, voting: true }] {
            assert_eq!(QuorumState::parse(&state.format()), Ok(state));
        }
        let text = "data_version=1\nleader_epoch=7\nvoted_id=2\nvoted_directory_id=0000000000000000000000000000000a\nvoting=true\n";
        assert_eq!(QuorumState { epoch: 7, voted, voting: true }.format(), text);
        for broken in ["", "data_version=2\n", &text.replace("true", "yes"), &text.replace("epoch=7", "epoch=x")] {
            assert!(QuorumState::parse(broken.as_bytes()).is_err(), "{broken:?}");
        }
    }
}
