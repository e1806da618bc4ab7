//! A guest's sockets to its host: virtio-vsock (virtio 1.3, 5.10).
mod backlog;
mod connection;
mod device;
mod guest;
mod host;
mod packet;
mod stats;
mod table;

pub use device::{Control, Vsock};
pub use stats::Stats;

/// The guest's address. Every machine has a device of its own, so all guests can have the same.
pub const GUEST_CID: u64 = 3;

/// The room for bytes from the guest that each connection has, in bytes: the guest is told, and never sends more.
pub const BUFFER: u32 = 256 << 10;

/// The most connections at a time.
pub const MOST_CONNECTIONS: usize = 1024;

/// The most of them that host programs have begun and that are not open yet. Others wait to be accepted.
pub const HANDSHAKES: usize = 64;

/// The size of each queue.
const QUEUE: u16 = 128;
