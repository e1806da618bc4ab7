//! Why a command could not be run in a test host.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use backend_api::{BackendError, Diagnostics};
use backend_process::Exit;

/// Why a command could not be run in a test host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("test host: cannot {action}")]
    System {
        /// What failed: "start QEMU" …
        action: &'static str,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// There is no QEMU.
    #[error("test host")]
    Qemu(#[source] BackendError),
    /// A file that it boots from is missing.
    #[error("test host: cannot read {}: `cargo xtask testhost --prepare` makes it", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// It did not get to the command in time. Nothing of the command has run.
    #[error("test host: no command running after {} s, in phase {phase}{said}", waited.as_secs())]
    Hung {
        /// Where it stands.
        phase: String,
        /// How long it was waited for.
        waited: Duration,
        /// What was said last.
        said: Diagnostics,
    },
    /// It ended by itself.
    #[error("test host: {who} {exit} in phase {phase}{said}")]
    Died {
        /// Which of its processes.
        who: Who,
        /// How.
        exit: Exit,
        /// Where it stood.
        phase: String,
        /// What was said last.
        said: Diagnostics,
    },
    /// The command ran too long and was ended, with all that it had started.
    #[error("test host: the command was still running after {} s and was ended, in phase {phase}", limit.as_secs())]
    Overdue {
        /// How long it was allowed to run.
        limit: Duration,
        /// Where the test host stood.
        phase: String,
    },
    /// What runs inside said something that is not understood.
    #[error("test host: its first program said {said:?}")]
    Status {
        /// What it said.
        said: String,
    },
}

/// One of the processes that a test host consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The emulator.
    Qemu,
    /// The server of this machine's files.
    Root,
    /// The server of the results.
    Results,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Qemu => "QEMU",
            Self::Root => "the server of this machine's files",
            Self::Results => "the server of the results folder",
        })
    }
}

/// Names what failed.
pub(crate) fn failed<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::System {
        action,
        source: source.into(),
    }
}
