//! What a VMM process is told and answers.
//!
//! Its driver holds the other end of a socket pair (`SOCK_SEQPACKET`). Each packet is one message as JSON, with the
//! descriptors that it names; each [`Request`] is answered by one [`Reply`], in order. There is no version: both sides
//! come from one build, and a VMM lives no longer than its driver. When the driver hangs up, the VMM ends.
//!
//! ```text
//!   Create ──▶ Boot ──▶ Pause ⇄ Resume, Resize, Plug ⇄ Unplug, Stats … ──▶ Stop, or the driver hangs up
//! ```
//!
//! What anything may be of is bounded here: a message by [`MESSAGE_LIMIT`], descriptors by [`DESCRIPTOR_LIMIT`].

mod channel;
mod sockets;
mod stats;

pub use channel::{ChannelError, Received, receive, send};
pub use sockets::{Call, Called};
pub use stats::{Counters, DeviceStats, Direction, Exits, Signals, Stats};

use serde::{Deserialize, Serialize};

/// The longest message, in bytes.
pub const MESSAGE_LIMIT: usize = 64 << 10;

/// The most descriptors that come with a message.
pub const DESCRIPTOR_LIMIT: usize = 128;

/// One of the descriptors that came with a message, by its number among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Handle(pub u16);

/// What a VMM is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Request {
    /// Makes the machine. The first request, and only that.
    Create(Box<Create>),
    /// Starts the virtual CPUs; answered by [`Reply::Booted`].
    Boot,
    /// Freezes the virtual CPUs.
    Pause,
    /// Lets them go on.
    Resume,
    /// Says how much memory the guest is to have, in bytes: what it began with and a multiple of [`MEMORY_STEP`], at most
    /// [`Create::growth_bytes`]. It gets there in its own time.
    Resize {
        /// All of it.
        memory_bytes: u64,
    },
    /// Puts a device into a spare place; answered by [`Reply::Plugged`]. The guest has to be told.
    Plug(Device),
    /// Takes away what [`Request::Plug`] has put into this place, whatever the guest does with it.
    Unplug {
        /// What [`Reply::Plugged`] has told.
        place: u8,
    },
    /// Asks for [`Reply::Stats`].
    Stats,
    /// Ends the machine and its process.
    Stop,
}

/// What a VMM answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Reply {
    /// It is done.
    Done,
    /// It cannot be done: why, in words.
    Failed(String),
    /// The virtual CPUs run from now on: however soon the guest ends, this is told before.
    Booted(Times),
    /// The device is in this place, and the guest finds it as `virtio-mmio.PLACE`.
    Plugged(u8),
    /// Counters.
    Stats(Box<Stats>),
}

/// The shape of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// `/dev/kvm`.
    pub kvm: Handle,
    /// The kernel's file.
    pub kernel: Handle,
    /// The image's.
    pub image: Handle,
    /// The kernel's command line without the machine's devices.
    pub command_line: String,
    /// In bytes.
    pub memory_bytes: u64,
    /// How much more it may become by [`Request::Resize`], in bytes: a multiple of [`MEMORY_STEP`].
    pub growth_bytes: u64,
    /// Whether the memory is of huge pages of 2 MiB that the host has set aside. Then the guest gives none back.
    pub huge_pages: bool,
    /// Virtual CPUs.
    pub vcpus: u8,
    /// A stream that takes what the guest writes on its console.
    pub console: Handle,
    /// A stream that the guest gets by connecting to [`LINK_PORT`] of its host.
    pub link: Handle,
    /// What connects programs of the guest with those of its host, beside the link.
    pub sockets: Option<Sockets>,
    /// The file share.
    pub share: Option<Share>,
    /// Network cards.
    pub nics: Vec<Nic>,
    /// Disks.
    pub disks: Vec<Disk>,
    /// Images in memory.
    pub images: Vec<Image>,
    /// What can be plugged in while the guest runs.
    pub spare: Spare,
}

/// What a machine is prepared for, beside what it boots with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spare {
    /// Places for devices.
    pub places: u8,
    /// How long a file may be that is a disk which the guest can write, in bytes.
    pub disk_bytes: u64,
    /// Whether a file share may come: memory is one that can be shared.
    pub share: bool,
}

/// What can be plugged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Device {
    /// A disk.
    Disk(Disk),
    /// An image in memory.
    Image(Image),
    /// A network card.
    Nic(Nic),
    /// A file share.
    Share(Share),
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// A file or block device, open for what the guest may do.
    pub file: Handle,
    /// Whether the guest may only read.
    pub read_only: bool,
    /// The name that the guest gets for it: at most [`SERIAL_LIMIT`] bytes.
    pub serial: String,
}

/// The longest serial number of a disk, in bytes (virtio 1.3, 5.2.6).
pub const SERIAL_LIMIT: usize = 20;

/// An image that is in the guest's memory and that it can only read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// A file or block device.
    pub file: Handle,
}

/// A machine grows and shrinks by multiples of this, in bytes.
pub const MEMORY_STEP: u64 = 2 << 20;

/// The port of the host where a guest finds its link.
pub const LINK_PORT: u32 = 1024;

/// How programs of guest and host find each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sockets {
    /// A Unix stream socket that listens: programs of the host come in there, and name a port of the guest.
    pub listener: Handle,
    /// Where the VMM sends a [`Call`] when the guest wants to be connected to a port of its host, and gets [`Called`].
    pub calls: Handle,
}

/// A file share that another process serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// What the guest mounts it by.
    pub tag: String,
    /// A connected vhost-user socket.
    pub socket: Handle,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nic {
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Queues of a tap.
    pub queues: Vec<Handle>,
    /// `/dev/vhost-net`, once for each queue, or none.
    pub vhost: Vec<Handle>,
}

/// When the process reached the steps of a boot, in nanoseconds of the host's `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Times {
    /// It is confined, and reads its first request.
    pub ready: u64,
    /// KVM has made the machine.
    pub machine: u64,
    /// The machine has its devices.
    pub devices: u64,
    /// Kernel and image are in memory, and the virtual CPUs are let go.
    pub processors: u64,
    /// How long kernel and image took to load, from the time on when the machine had memory. No instant: a duration.
    pub loading: u64,
}
