//! Why a share could not be served or changed.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use backend_process::Exit;

use crate::EntryError;

/// Why a share could not be served or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// The file server's program could not be started or spoken to.
    #[error("cannot {action} the file server {}", program.display())]
    System {
        /// What failed: "start", "tell" …
        action: &'static str,
        /// The program.
        program: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// The server refused an entry.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The server ended without an answer.
    #[error("the file server {exit} before it was ready{stderr}")]
    Exited {
        /// How it ended.
        exit: Exit,
        /// A line feed and the end of its stderr, or nothing.
        stderr: String,
    },
    /// The server gave no answer in time.
    #[error("the file server {} was not ready after {} s{stderr}", program.display(), deadline.as_secs())]
    Silent {
        /// The program.
        program: PathBuf,
        /// How long it was waited for.
        deadline: Duration,
        /// A line feed and the end of its stderr, or nothing.
        stderr: String,
    },
}
