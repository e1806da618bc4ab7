//! A guest's sockets to its host: virtio-vsock (virtio 1.3, 5.10), stream sockets only.
//!
//! On the host every connection is a Unix stream socket, of three kinds:
//! - a *service*: a port of the host that stands for one end of a pair of sockets. The guest's first connection to it
//!   gets that; all others are refused, also when the first has ended.
//! - the way in: a host program connects to a listening socket, writes `CONNECT <port>\n` and reads `OK <host's port>\n`
//!   when a program of the guest has accepted, as with Firecracker and Cloud Hypervisor. If the guest refuses it reads
//!   the end.
//! - the way out: a program of the guest connects to any other port of the host. The machine's driver is asked for it
//!   (`vmm_control::Call`), and answers with a connected socket or with none; then the guest is refused.
//!
//! ```text
//!   host program: accepted                          guest: REQUEST to a service
//!        │                                               │ RESPONSE
//!        ▼   CONNECT                  RESPONSE           ▼
//!    greeting ───────▶ asked (REQUEST) ───────────────▶ open ◀─┐ RW, CREDIT_…, SHUTDOWN of one direction
//!        │               │                               │ └───┘
//!        │ other words,  │ RST, anything else,           │
//!        │ 10 s          │ 30 s, host gone               │
//!        ▼               ▼                               │
//!      ended ◀───────────┴───────────────────────────────┤ RST; anything that open does not allow: RST
//!        ▲                                               │ SHUTDOWN of both directions: RST
//!        └───────────────── draining ◀───────────────────┘ … once the host has read what came before
//! ```
//!
//! A packet that belongs to no connection is answered by `RST`, unless it is one (5.10.6.4). The end of a direction
//! goes both ways: `shutdown` of the host's program becomes `SHUTDOWN`, and the other way round. When the host's program
//! has gone, the guest reads what there was, gets `SHUTDOWN` of both directions and confirms with `RST`.
//!
//! Bytes go from guest memory to the socket by one `writev`, and from the socket into guest memory by one `readv`. What a
//! socket has no room for is kept, up to [`BUFFER`] of each connection: that is the room the guest is told to have
//! (5.10.6.3), and a packet with more breaks its connection. So a host program that does not read costs at most that, and
//! holds up nobody else. Nothing is read from a socket that the guest has no room for. Connections take turns, a packet
//! each. A guest that takes no resets is not heard until it does.
//!
//! Nothing happens while nothing happens: sockets are watched for changes, and the one timer is set only while a
//! handshake can be late.
//!
//! The process must ignore `SIGPIPE`, as Rust's runtime does: a host program may close its end at any time. What the
//! device calls while it runs, as `strace` shows it: `readv`, `writev`, `recvfrom` and `sendto` on connections; `accept4`,
//! `ioctl` with `FIONBIO`, `shutdown`, `close`, `epoll_ctl`, `timerfd_settime`; `read` and `write` on events.

mod backlog;
mod calls;
mod connection;
mod credit;
mod device;
mod guest;
mod host;
mod packet;
mod state;
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
