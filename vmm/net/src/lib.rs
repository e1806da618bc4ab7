//! Network cards on a tap, served here or by vhost-net: virtio-net (virtio 1.3, 5.1).
//!
//! The tap's descriptors come in, one for each pair of queues. Packets go between the tap and the guest's memory as they
//! are, with virtio's header in front: checksums and segmentation are left to whoever does them best, and what the tap
//! may leave to the driver (`TUNSETOFFLOAD`) is exactly what the driver has accepted.
//!
//! ```text
//!             activate                       VQ_PAIRS_SET
//!   idle ─────────────────▶ one pair works ◀──────────────▶ several pairs work
//!    ▲                          │   ▲                            │
//!    └────────── reset ─────────┴───┼────────────────────────────┘
//!                                   │ Link::set, or the tap is gone
//!                                   ▼
//!                     no link: packets are lost, the driver is told by the configuration's status
//! ```
//!
//! The receiving half of a pair is drawn in `receive`, the sending half in `transmit`. With vhost-net both are the
//! kernel's, and only the control queue and the link are served here.
//!
//! The driver is hostile; so the header of a packet is never looked at. The tap takes its own copy of it, checks it, and
//! refuses what does not fit the packet.
//!
//! While it runs, a card uses `readv`, `writev`, `epoll_ctl`, `timerfd_settime`, `read` and `write` on events, and the
//! requests [`IOCTLS`] of taps and of vhost-net.

mod active;
mod config;
mod control;
mod device;
mod error;
mod features;
mod held;
mod link;
mod pair;
mod receive;
mod statistics;
mod tap;
mod transmit;
mod vhost;

pub use config::Settings;
pub use device::Net;
pub use error::NetError;
pub use link::Link;
pub use statistics::{Counts, Statistics, Traffic};

/// The most pairs of queues that a card can have.
pub const PAIRS: usize = 16;

/// The requests (`ioctl`) that a card makes while it runs, for whoever filters system calls. Those behind the third are
/// made with vhost-net only.
pub const IOCTLS: [u32; 12] = [
    libc::TUNSETOFFLOAD as u32,
    libc::TUNSETQUEUE as u32,
    libc::TUNSETCARRIER as u32,
    // VHOST_SET_FEATURES, _MEM_TABLE, _VRING_NUM, _VRING_ADDR, _VRING_BASE, _VRING_KICK, _VRING_CALL, _VRING_ERR, and
    // VHOST_NET_SET_BACKEND of linux/vhost.h.
    0x4008_af00,
    0x4008_af03,
    0x4008_af10,
    0x4028_af11,
    0x4008_af12,
    0x4008_af20,
    0x4008_af21,
    0x4008_af22,
    0x4008_af30,
];
