//! The sixteen bytes at the head of every stream.

use super::LinkError;

/// What a stream of the link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// The agent service.
    Control,
    /// One stdio stream of a process, named by the token in the request that made the process.
    Stdio {
        /// Chosen by the host, unique while the stream lives, never 0.
        token: u64,
    },
    /// A TCP connection to the guest's loopback. The guest answers [`READY`] when it is there, and ends the stream when
    /// it cannot be had.
    Connect {
        /// Never 0.
        port: u16,
    },
    /// Questions for names, which the guest asks; see [`resolver`](super::resolver). The guest answers [`READY`] when it
    /// takes them from its containers.
    Resolver,
}

/// What the guest says first on a stream that it may refuse.
pub const READY: u8 = 1;

/// The head of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preamble(pub StreamKind);

const MAGIC: [u8; 3] = [b'C', b'F', 1];
const CONTROL: u8 = 1;
const STDIO: u8 = 2;
const CONNECT: u8 = 3;
const RESOLVER: u8 = 4;

impl Preamble {
    /// Bytes of a preamble.
    pub const LEN: usize = 16;

    /// The preamble as it is sent.
    #[must_use]
    pub fn encode(self) -> [u8; Self::LEN] {
        let (kind, token) = match self.0 {
            StreamKind::Control => (CONTROL, 0),
            StreamKind::Stdio { token } => (STDIO, token),
            StreamKind::Connect { port } => (CONNECT, port.into()),
            StreamKind::Resolver => (RESOLVER, 0),
        };
        let mut bytes = [0; Self::LEN];
        bytes[..3].copy_from_slice(&MAGIC);
        bytes[3] = kind;
        bytes[8..].copy_from_slice(&token.to_le_bytes());
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`LinkError::BadPreamble`] if it is anything else.
    pub fn decode(bytes: [u8; Self::LEN]) -> Result<Self, LinkError> {
        let (head, token) = bytes.split_at(8);
        let token = token
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let bad = Err(LinkError::BadPreamble { found: bytes });
        if head[..3] != MAGIC || head[4..] != [0; 4] {
            return bad;
        }
        match (head[3], token) {
            (CONTROL, 0) => Ok(Self(StreamKind::Control)),
            (RESOLVER, 0) => Ok(Self(StreamKind::Resolver)),
            (STDIO, token) if token != 0 => Ok(Self(StreamKind::Stdio { token })),
            (CONNECT, port) => match u16::try_from(port) {
                Ok(port @ 1..) => Ok(Self(StreamKind::Connect { port })),
                _ => bad,
            },
            _ => bad,
        }
    }
}
