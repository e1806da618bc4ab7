//! The link: one byte stream between host and guest, many streams over it.
//!
//! QEMU offers a virtio-serial port, which is a single pair of queues; our own monitor offers one vsock
//! connection that the guest makes, so that nobody can open another. So streams are multiplexed with yamux: the host is its client and opens every stream, the guest its
//! server. A stream begins with a [`Preamble`] that says what it is for:
//!
//! ```text
//! 'C' 'F' 01 kind 00 00 00 00 | token, u64 little-endian
//! ```
//!
//! Limits, the same on both sides: [`MAX_STREAMS`] streams, [`STREAM_WINDOW`] bytes under way
//! in each. Neither side buffers more than their product for a peer that does not read, or
//! for one that sends without being asked.

mod connection;
mod outbox;
mod preamble;
mod relay;
pub mod resolver;
mod stream;

#[cfg(test)]
mod tests;

pub use connection::{Incoming, Link, guest};
pub use preamble::{Preamble, READY, StreamKind};
pub use relay::{relay, reset};
pub use stream::LinkStream;

/// Most streams open at the same time.
pub const MAX_STREAMS: usize = 256;

/// Bytes a stream may have under way before its reader takes them. Fixed: the link's round
/// trip is far below a millisecond, larger windows would only be memory for a hostile peer.
pub const STREAM_WINDOW: usize = 256 * 1024;

/// Why the link, or the opening of a stream on it, failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The multiplexed connection broke.
    #[error("the link between host and guest failed")]
    Connection(#[source] yamux::ConnectionError),
    /// The connection has ended, nothing can be opened on it.
    #[error("the link between host and guest is closed")]
    Closed,
    /// The host has [`MAX_STREAMS`] streams open.
    #[error("{MAX_STREAMS} streams of the link are open already")]
    TooManyStreams,
    /// The peer opened a stream although only the host may.
    #[error("the guest opened a stream on the link, which only the host may do")]
    UnexpectedStream,
    /// A stream did not begin as it must.
    #[error("a stream of the link began with {found:02x?}, which is no preamble this side knows")]
    BadPreamble {
        /// What stood there instead.
        found: [u8; Preamble::LEN],
    },
    /// The guest has ended a stream instead of saying that it is ready.
    #[error("the guest refuses a stream of the link")]
    Refused,
    /// The head of a stream could not be written.
    #[error("cannot write the head of a new stream of the link")]
    Open(#[source] std::io::Error),
}
