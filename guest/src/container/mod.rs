//! The containers of the sandbox.
//!
//! ```text
//!           start            pause
//! created ────────► running ◄──────► paused
//!    │                 │       resume   │
//!    └───────┬─────────┴────────────────┘
//!            ▼ the first process ends
//!         stopped ──delete──► (gone)
//! ```
//!
//! One operation per file. Operations on one container happen one after the other.

mod apparmor;
mod copy_up;
mod create;
mod delete;
mod error;
mod exec;
mod face;
mod list;
mod namespaces;
mod outcome;
mod paths;
mod pause;
mod share;
mod shm;
mod signal;
mod spec;
mod start;
mod stats;
mod update;
mod wait;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cofferdam_protocol::{StartFailure, start_failure};
use oci_spec::runtime::Spec;
use tokio::sync::{Mutex as AsyncMutex, mpsc};

pub use error::ContainerError;

use crate::cgroup::{Cgroup, OomCount};
use crate::helper::{Helper, ReportReader};
use crate::process::{Process, Reaper, Streams};

/// Where everything about containers is kept, in memory.
const FOLDER: &str = "/run/cofferdam";

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its first process waits.
    Created,
    /// Its first process runs.
    Running,
    /// All its processes are stopped.
    Paused,
    /// Its first process has ended.
    Stopped,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// Why a process was not started, in the words and kinds that the host passes on.
#[derive(Debug)]
pub enum Failure {
    /// There is no such command.
    CommandMissing(String),
    /// The command cannot be executed.
    CommandRefused(String),
    /// Anything else.
    Other(String),
}

impl From<Failure> for StartFailure {
    fn from(failure: Failure) -> Self {
        use start_failure::Kind;
        let (kind, message) = match failure {
            Failure::CommandMissing(message) => (Kind::COMMAND_NOT_FOUND, message),
            Failure::CommandRefused(message) => (Kind::COMMAND_NOT_EXECUTABLE, message),
            Failure::Other(message) => (Kind::OTHER, message),
        };
        Self {
            kind: kind.into(),
            message,
            ..Self::default()
        }
    }
}

/// One container.
#[derive(Debug)]
struct Container {
    id: String,
    spec: Spec,
    cgroup: Cgroup,
    oom: Arc<OomCount>,
    /// Held while an operation changes the container.
    operation: AsyncMutex<()>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    init: Arc<Process>,
    /// Whether it was started, and then paused.
    started: bool,
    paused: bool,
    /// What the first process will say when it is started.
    report: Option<ReportReader>,
    /// `None`: the name is taken by a process that is being made.
    execs: HashMap<String, Option<Arc<Process>>>,
}

impl Container {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> State {
        let inner = self.inner();
        match (inner.init.has_ended(), inner.started, inner.paused) {
            (true, _, _) => State::Stopped,
            (false, false, _) => State::Created,
            (false, true, false) => State::Running,
            (false, true, true) => State::Paused,
        }
    }

    /// Refuses an operation in a state that does not allow it.
    fn require(&self, operation: &'static str, allowed: &[State]) -> Result<(), ContainerError> {
        let state = self.state();
        if allowed.contains(&state) {
            return Ok(());
        }
        Err(ContainerError::State {
            operation,
            id: self.id.clone(),
            state,
        })
    }

    /// The process `exec`, or the first one if that is empty.
    fn process(&self, exec: &str) -> Result<Arc<Process>, ContainerError> {
        let inner = self.inner();
        if exec.is_empty() {
            return Ok(Arc::clone(&inner.init));
        }
        let found = inner.execs.get(exec).and_then(Option::as_ref);
        found.cloned().ok_or_else(|| ContainerError::NoProcess {
            id: self.id.clone(),
            exec: exec.to_owned(),
        })
    }
}

/// All containers, and what is needed to make them.
#[derive(Debug)]
pub struct Containers {
    helper: Helper,
    reaper: Arc<Reaper>,
    streams: Arc<Streams>,
    /// `None`: the name is taken by a container that is being made.
    table: Mutex<HashMap<String, Option<Arc<Container>>>>,
    /// Numbers for the names of cgroups and sockets.
    next: AtomicU64,
    oom: mpsc::Sender<String>,
}

impl Containers {
    /// No containers yet. Names of those that run out of memory go to `oom`.
    #[must_use]
    pub fn new(
        helper: Helper,
        reaper: Arc<Reaper>,
        streams: Arc<Streams>,
        oom: mpsc::Sender<String>,
    ) -> Self {
        Self {
            helper,
            reaper,
            streams,
            table: Mutex::default(),
            next: AtomicU64::new(1),
            oom,
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Option<Arc<Container>>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &str) -> Result<Arc<Container>, ContainerError> {
        let table = self.table();
        let found = table.get(id).and_then(Option::as_ref);
        found
            .cloned()
            .ok_or_else(|| ContainerError::NoContainer { id: id.to_owned() })
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A socket path that no other process uses.
    fn console_path(&self) -> PathBuf {
        Path::new(FOLDER).join(format!("console-{}", self.number()))
    }
}
