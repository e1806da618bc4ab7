//! What the driver and `cofferdam-fs` say to each other: one [`Launch`] there, one [`Answer`] back, each a JSON text
//! behind its length as a little-endian `u32`. The vhost-user socket travels with the launch as `SCM_RIGHTS`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Entry;

/// The largest message that is read.
pub const MESSAGE_LIMIT: usize = 4 << 20;

/// What the driver wants served. An enumeration so that later kinds (entries added while the guest runs) have a place.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Launch {
    /// Lay these entries out and serve them.
    Serve {
        /// The entries.
        entries: Vec<Entry>,
        /// How many requests are worked on at once.
        threads: usize,
    },
}

/// What the server answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Everything is laid out and the server is locked in.
    Ready,
    /// It could not be, and the server exits.
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
