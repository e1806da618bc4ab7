//! The file share of a sandbox: what it holds, and starting the server that serves it.
//!
//! The server is a process of its own (`cofferdam-fs`) so that neither the VMM nor the driver has a file of the host
//! open on behalf of the guest. It lays out the [`Entry`]s as mounts in its own mount namespace, locks itself in there
//! and serves them over vhost-user: ending it removes every trace of the share.
//!
//! ```text
//!   driver                          cofferdam-fs
//!     │ spawn, Launch + socket ──────────▶│  mounts, pivot_root, drops privileges
//!     │◀──────────────── Ready or Failed ─│
//!     │  socket to the VMM                │  serves until the VMM hangs up, then exits
//! ```
//!
//! Entries that come and go while the guest runs are the work of short-lived processes of the same program, which enter
//! the server's mount namespace with rights that the server has given up: see [`ShareEditor`].

mod editor;
mod error;
mod launch;
mod process;
mod server;

pub use editor::{Removal, ShareEditor};
pub use error::ShareError;
pub use launch::{Answer, EntryError, Launch, MESSAGE_LIMIT};
pub use server::{ShareConfig, ShareServer, private_listener};

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One thing that the guest sees in the share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Where it is in the share: a relative path of plain names, e.g. `c1/rootfs`. Entries must not lie in each other.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
}

/// What an [`Entry`] shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum EntryKind {
    /// A directory or a single file of the host (also a socket, fifo or device node: the guest sees the node only).
    Bind {
        /// An absolute path on the host; symbolic links in it are followed.
        source: PathBuf,
        /// Whether the guest may not write to it. Enforced by the host's kernel.
        readonly: bool,
        /// Whether what is mounted below the source is seen too.
        recursive: bool,
    },
    /// An overlay of read-only directories with a writable one on top.
    Overlay {
        /// The read-only directories, the topmost first.
        lower: Vec<PathBuf>,
        /// The writable directory.
        upper: PathBuf,
        /// An empty directory on the same file system as `upper`.
        work: PathBuf,
    },
}
