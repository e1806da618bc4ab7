//! Questions for names on a stream of kind [`Resolver`](super::StreamKind::Resolver): the guest asks, the host answers, in
//! any order. Both directions have the same frames:
//!
//! ```text
//! tag, u32 little-endian | transport: 1 datagram, 2 connection | 00 | length, u16 little-endian | DNS message
//! ```
//!
//! An answer bears the tag of its question. One that is empty says that there is none.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Questions that the guest may have open. The host takes no more from the stream.
pub const MOST_QUESTIONS: usize = 64;

/// The longest question: nobody asks for more than a few names.
pub const LONGEST_QUESTION: usize = 4096;

/// How the question came, and how it is passed on: answers by datagram are cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// UDP.
    Datagram,
    /// TCP.
    Connection,
}

/// A question or an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameMessage {
    /// Chosen by who asks.
    pub tag: u32,
    /// Of both.
    pub transport: Transport,
    /// As DNS has it (RFC 1035, section 4), without the length that TCP puts in front.
    pub message: Vec<u8>,
}

const HEAD: usize = 8;
const DATAGRAM: u8 = 1;
const CONNECTION: u8 = 2;

impl NameMessage {
    /// As it is sent; empty if it is longer than a DNS message can be.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (length, message) = match u16::try_from(self.message.len()) {
            Ok(length) => (length, self.message.as_slice()),
            Err(_) => (0, &[][..]),
        };
        let mut bytes = Vec::with_capacity(HEAD + message.len());
        bytes.extend(self.tag.to_le_bytes());
        bytes.push(match self.transport {
            Transport::Datagram => DATAGRAM,
            Transport::Connection => CONNECTION,
        });
        bytes.push(0);
        bytes.extend(length.to_le_bytes());
        bytes.extend(message);
        bytes
    }

    /// The next one of a stream; none when it has ended.
    ///
    /// # Errors
    /// When the stream breaks, ends half way, has something else, or a message longer than `most`.
    pub async fn read(
        from: &mut (impl AsyncRead + Unpin),
        most: usize,
    ) -> io::Result<Option<Self>> {
        let mut head = [0; HEAD];
        match from.read(&mut head).await? {
            0 => return Ok(None),
            HEAD => {}
            some => drop(from.read_exact(&mut head[some..]).await?),
        }
        let [t0, t1, t2, t3, transport, zero, l0, l1] = head;
        let transport = match (transport, zero) {
            (DATAGRAM, 0) => Transport::Datagram,
            (CONNECTION, 0) => Transport::Connection,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        let length = usize::from(u16::from_le_bytes([l0, l1]));
        if length > most {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut message = vec![0; length];
        from.read_exact(&mut message).await?;
        Ok(Some(Self {
            tag: u32::from_le_bytes([t0, t1, t2, t3]),
            transport,
            message,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> NameMessage {
        NameMessage {
            tag: 0x0403_0201,
            transport: Transport::Connection,
            message: vec![7; length],
        }
    }

    #[tokio::test]
    async fn messages_are_what_the_page_says() {
        assert_eq!(message(1).encode(), [1, 2, 3, 4, 2, 0, 1, 0, 7]);
        for length in [0, 1, 4096, 65535] {
            let sent = message(length).encode();
            let read = NameMessage::read(&mut sent.as_slice(), 65535).await;
            assert_eq!(read.expect("a message"), Some(message(length)));
        }
        // There is no such message: that nobody has an answer is true.
        assert_eq!(message(65536).encode(), message(0).encode());
    }

    #[tokio::test]
    async fn nothing_else_is_taken() {
        let most = 100;
        let mut end: &[u8] = &[];
        assert_eq!(
            NameMessage::read(&mut end, most).await.expect("an end"),
            None
        );
        for bad in [
            message(101).encode(),
            message(9).encode()[..10].to_vec(),
            vec![1, 2, 3],
            vec![1, 2, 3, 4, 0, 0, 0, 0],
            vec![1, 2, 3, 4, 3, 0, 0, 0],
            vec![1, 2, 3, 4, 1, 1, 0, 0],
        ] {
            let read = NameMessage::read(&mut bad.as_slice(), most).await;
            assert!(read.is_err(), "{bad:?}: {read:?}");
        }
    }
}
