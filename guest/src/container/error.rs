//! Why an operation on a container failed.

use std::io;
use std::path::PathBuf;

use super::State;
use crate::cgroup::DeviceError;
use crate::helper::HelperError;
use crate::process::StreamError;

/// Why an operation on a container failed.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// There is no such container.
    #[error("container {id:?} does not exist")]
    NoContainer {
        /// The name asked for.
        id: String,
    },
    /// There is one already.
    #[error("container {id:?} exists already")]
    ContainerExists {
        /// Its name.
        id: String,
    },
    /// There is no such process.
    #[error("container {id:?} has no process {exec:?}")]
    NoProcess {
        /// The container.
        id: String,
        /// The process asked for.
        exec: String,
    },
    /// There is one already.
    #[error("container {id:?} has a process {exec:?} already")]
    ProcessExists {
        /// The container.
        id: String,
        /// The process.
        exec: String,
    },
    /// The container's state does not allow it.
    #[error("cannot {operation} container {id:?}: it is {state}")]
    State {
        /// What was to be done.
        operation: &'static str,
        /// The container.
        id: String,
        /// What it is doing.
        state: State,
    },
    /// The process has ended, or has not.
    #[error("process {exec:?} of container {id:?} {problem}")]
    Process {
        /// The container.
        id: String,
        /// The process; empty for the first.
        exec: String,
        /// What is in the way.
        problem: &'static str,
    },
    /// A request cannot be understood.
    #[error("{what} is not what it must be")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// In which way.
        #[source]
        source: serde_json::Error,
    },
    /// A request asks for what cannot be.
    #[error("{field}: {problem}")]
    Invalid {
        /// Where in the request.
        field: String,
        /// Why not.
        problem: String,
    },
    /// A file of the guest's.
    #[error("cannot {doing} {path}")]
    File {
        /// What was to be done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Something without a path.
    #[error("cannot {doing}")]
    Kernel {
        /// What was to be done.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The resources of a container cannot be changed.
    #[error("cannot change the resources of container {id:?}: {problem}")]
    Resources {
        /// The container.
        id: String,
        /// With all its causes.
        problem: String,
    },
    /// A stdio stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The helper.
    #[error(transparent)]
    Helper(#[from] HelperError),
    /// Device rules.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The agent is coming down.
    #[error("the guest is being shut down")]
    Ending,
}

impl ContainerError {
    /// For `map_err` on a file operation.
    pub(super) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            doing,
            path,
            source,
        }
    }

    /// For `map_err` on what has no path.
    pub(super) fn kernel(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Kernel { doing, source }
    }

    /// A request that asks for what cannot be.
    pub(super) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            problem: problem.into(),
        }
    }
}
