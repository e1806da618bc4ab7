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
}

/// The head of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preamble(pub StreamKind);

const MAGIC: [u8; 3] = [b'C', b'F', 1];
const CONTROL: u8 = 1;
const STDIO: u8 = 2;

impl Preamble {
    /// Bytes of a preamble.
    pub const LEN: usize = 16;

    /// The preamble as it is sent.
    #[must_use]
    pub fn encode(self) -> [u8; Self::LEN] {
        let (kind, token) = match self.0 {
            StreamKind::Control => (CONTROL, 0),
            StreamKind::Stdio { token } => (STDIO, token),
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
            (STDIO, token) if token != 0 => Ok(Self(StreamKind::Stdio { token })),
            _ => bad,
        }
    }
}
