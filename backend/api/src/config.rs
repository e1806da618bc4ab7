//! What a caller wants of a virtual machine.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

/// One virtual machine as the caller wants it.
#[derive(Debug)]
pub struct VmConfig {
    /// The sandbox id; used in logs and as the VM's process name only.
    pub name: String,
    /// An uncompressed ELF kernel.
    pub kernel: PathBuf,
    /// A cpio archive that holds the guest's init.
    pub initrd: PathBuf,
    /// Parameters added to the end of the kernel command line, one each, without spaces.
    pub cmdline: Vec<String>,
    /// Guest memory in bytes; a multiple of 1 MiB, at least 64 MiB.
    pub memory_bytes: u64,
    /// How much more it may become by [`Vm::resize`](crate::Vm::resize), in bytes; a multiple of 2 MiB. It costs nothing as
    /// long as it is not used. Linux can use whole 128 MiB of it. Needs [`Capabilities::resize`](crate::Capabilities::resize).
    pub spare_memory_bytes: u64,
    /// Whether the guest boots with memory of huge pages of 2 MiB that the host has set aside; then
    /// [`memory_bytes`](Self::memory_bytes) are whole 2 MiB. Needs [`Capabilities::huge_pages`](crate::Capabilities::huge_pages).
    pub huge_pages: bool,
    /// Number of virtual CPUs that the guest boots with, at least 1.
    pub vcpus: u32,
    /// Number of virtual CPUs beside those: they are offline until the guest brings them online. Needs
    /// [`Capabilities::resize`](crate::Capabilities::resize).
    pub spare_vcpus: u32,
    /// The file share, if the guest gets one.
    pub share: Option<Share>,
    /// What connects programs of the guest with those of its host. Needs
    /// [`Capabilities::sockets`](crate::Capabilities::sockets).
    pub sockets: Option<Sockets>,
    /// Network cards, at most as many as [`Capabilities::nics`](crate::Capabilities::nics).
    pub nics: Vec<Nic>,
    /// Disks, in the order in which the guest finds them. With `images` and `spare_devices` at most
    /// [`Capabilities::devices`](crate::Capabilities::devices).
    pub disks: Vec<Disk>,
    /// Images in the guest's memory, in the order in which it finds them.
    pub images: Vec<Image>,
    /// What can be plugged in while the guest runs.
    pub spare_devices: SpareDevices,
    /// The network namespace that the VMM process is in; without it, one of its own. Nothing but the process is there:
    /// its taps may be anywhere. Needs [`Privileges::Drop`].
    pub network: Option<OwnedFd>,
    /// The control groups that the VMM process is in from its beginning, instead of the caller's: their `cgroup.procs`, open
    /// for writing.
    pub groups: Vec<OwnedFd>,
    /// Who the VMM process runs as.
    pub privileges: Privileges,
}

/// What a machine is prepared for, beside what it boots with: see [`Vm::plug`](crate::Vm::plug).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpareDevices {
    /// How many devices can be there beside those of the boot. Each costs the guest's boot a little. Needs
    /// [`Capabilities::plug`](crate::Capabilities::plug).
    pub places: usize,
    /// How long a file may be that is plugged in as a disk which the guest can write, in bytes: the VMM gives up writing
    /// behind that in any file before the guest runs.
    pub disk_bytes: u64,
    /// Whether a file share may come; the machine's memory then is a file from the beginning.
    pub share: bool,
}

/// Something that can be plugged in.
#[derive(Debug)]
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

/// A virtio disk.
#[derive(Debug)]
pub struct Disk {
    /// A file or a block device, open for reading and, unless it is read-only, for writing.
    pub file: OwnedFd,
    /// Whether the guest may only read.
    pub read_only: bool,
    /// The serial number that the guest sees: at most 20 characters of ASCII.
    pub serial: String,
}

/// A virtio-pmem image: a file in the guest's memory that it can only read, straight from the host's page cache.
#[derive(Debug)]
pub struct Image {
    /// A file or a block device that is open for reading. If it becomes shorter, a guest that reads what is gone ends its
    /// machine.
    pub file: OwnedFd,
}

/// How programs of guest and host find each other by ports of virtio-vsock, beside the link.
#[derive(Debug)]
pub struct Sockets {
    /// A Unix stream socket that listens. A program of the host connects, writes `CONNECT PORT\n`, and reads `OK PORT\n` (its
    /// own port) once a program of the guest has accepted at that port, else the end.
    pub listener: OwnedFd,
    /// Connects the guest to a port of its host. The guest decides how often it is called.
    pub dial: Arc<dyn Dial>,
}

/// Connects to programs of the host.
pub trait Dial: fmt::Debug + Send + Sync {
    /// A connected Unix stream socket that does not block. Must not block itself.
    ///
    /// # Errors
    /// When nobody listens at this port, or has no room at the moment: the guest is refused.
    fn dial(&self, port: u32) -> io::Result<OwnedFd>;
}

/// A virtio network card whose wire is a tap.
#[derive(Debug)]
pub struct Nic {
    /// The Ethernet address that the card is born with; the guest may give it another.
    pub mac: [u8; 6],
    /// The tap's queues, at least one and at most as many as [`Capabilities::nic_queues`](crate::Capabilities::nic_queues); the tap was made with `IFF_VNET_HDR`.
    pub queues: Vec<OwnedFd>,
}

/// A virtio-fs file share that another process serves over vhost-user.
#[derive(Debug)]
pub struct Share {
    /// The name that the guest mounts, at most 36 bytes.
    pub tag: String,
    /// The VMM's end of a connected vhost-user socket pair.
    pub socket: OwnedFd,
}

/// Who the VMM process runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privileges {
    /// This user and group, no capabilities and namespaces of its own. Needs root. Give each sandbox a user of its own
    /// so that one VMM can't touch another's process.
    Drop {
        /// User id, not 0.
        uid: u32,
        /// Group id, not 0.
        gid: u32,
    },
    /// The caller's user and group: for callers that are not root.
    Inherit,
}
