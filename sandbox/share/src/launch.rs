//! What the driver and `cofferdam-fs` say to each other: one [`Launch`] there, one [`Answer`] back, each a JSON text
//! behind its length as a little-endian `u32`. One descriptor travels with the launch as `SCM_RIGHTS`; each kind says
//! which.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Entry;

/// The largest message that is read.
pub const MESSAGE_LIMIT: usize = 4 << 20;

/// What the driver wants of a `cofferdam-fs` process. The first kind is the server of a sandbox; the others are
/// short-lived, keep their rights, and change what a server shows, which has none left to do so.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Launch {
    /// Lay these entries out and serve them. Descriptor: the socket that the VMM connects to.
    Serve {
        /// The entries.
        entries: Vec<Entry>,
        /// How many requests are worked on at once.
        threads: usize,
    },
    /// Show these entries too; all or none. Descriptor: the server's folder in `/proc`.
    Add {
        /// The entries.
        entries: Vec<Entry>,
    },
    /// Show the entries with these paths no longer; those that are not there are skipped. Descriptor: the server's
    /// folder in `/proc`.
    Remove {
        /// The entries' paths in the share.
        paths: Vec<PathBuf>,
    },
}

/// What the process answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is done: everything is laid out and the server locked in; or the entries are added, or removed.
    Ready,
    /// The entries are removed, but the guest has files in them open still: their file systems stay busy until it
    /// lets go of them, at the latest with its end.
    Held,
    /// It could not be done, and the process exits.
    Failed(EntryError),
}

/// Why the share could not be laid out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum EntryError {
    /// An entry of the share is at fault.
    #[error("share entry {}: {what} {}: {reason}", entry.display(), path.display())]
    Entry {
        /// The entry's path in the share.
        entry: PathBuf,
        /// What failed, e.g. "cannot open".
        what: String,
        /// The host's path it failed on.
        path: PathBuf,
        /// The operating system's answer.
        reason: String,
    },
    /// The server could not lock itself in.
    #[error("file server: {step}: {reason}")]
    Confine {
        /// What failed.
        step: String,
        /// The operating system's answer.
        reason: String,
    },
}
