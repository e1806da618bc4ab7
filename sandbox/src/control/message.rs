//! What commands and the driver of a sandbox say to each other.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::id::ContainerId;
use crate::spec::Rootfs;
use crate::state::{ExitStatus, ProcessIdentity, Status};

/// First message to a new driver, or in [`Request::Join`] to that of the sandbox. Its descriptors: those of [`HostStdio`], then the socket to the proxy that stands
/// for the container's first process.
#[derive(Debug, Serialize, Deserialize)]
pub struct Launch {
    /// The state directory.
    pub root: std::path::PathBuf,
    /// The container, whose record exists.
    pub id: ContainerId,
    /// As loaded by the command.
    pub config: Config,
    /// As read from the bundle.
    pub spec: Box<Spec>,
    /// Where the root file system comes from.
    pub rootfs: Rootfs,
    /// What the descriptors are.
    pub stdio: HostStdio,
    /// The proxy, as hooks and `state` show it.
    pub proxy: ProcessIdentity,
}

/// Where a process's stdio goes on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostStdio {
    /// Three descriptors come along: stdin, stdout and stderr.
    Pipes,
    /// Two descriptors come along, to read from and to write to: ends of one terminal.
    Terminal,
    /// stdin is empty; stdout and stderr are written to a log that the driver opens.
    Log(std::path::PathBuf),
}

impl HostStdio {
    /// How many descriptors come with it.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        match self {
            Self::Pipes => 3,
            Self::Terminal => 2,
            Self::Log(_) => 0,
        }
    }
}

/// What the driver answers to [`Launch`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Launched {
    /// The container is created. The command answers with [`Adopted`], or the driver undoes everything.
    Created,
    /// It could not be.
    Failed(Failure),
}

/// The command that launched a driver has written down what it must; from now on the driver is on its own.
#[derive(Debug, Serialize, Deserialize)]
pub struct Adopted;

/// A request to a running driver, one per connection. It is about the container in whose folder the socket lies.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Make one more container in the sandbox; the connection becomes that of the command that creates it, as a new
    /// driver's would be: [`Launched`] comes back, and [`Adopted`] goes there.
    Join(Box<Launch>),
    /// Kill the container and let go of all that it has; the others of its sandbox stay.
    Delete,
    /// Which state the container is in.
    Status,
    /// Run the container's process.
    Start,
    /// Signal the container's first process, or all.
    Kill {
        /// Linux signal number.
        signal: u8,
        /// Every process of the container.
        all: bool,
    },
    /// Run one more process; the connection becomes that process's (see [`ProcessRequest`]).
    Exec {
        /// The process object.
        process: Box<Process>,
        /// What the descriptors are that come along.
        stdio: HostStdio,
    },
    /// Freeze.
    Pause,
    /// Thaw.
    Resume,
    /// Change limits.
    Update {
        /// Only what changes.
        resources: Box<LinuxResources>,
    },
    /// runc's statistics object.
    Stats,
    /// The container's processes.
    Processes,
    /// What the machine has counted, which is one for all containers of a pod.
    Counters,
}

/// Answer to a [`Request`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Done.
    Done,
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Stats`]: the `data` object of runc's `events`.
    Stats(serde_json::Value),
    /// To [`Request::Processes`].
    Processes(Vec<ProcessEntry>),
    /// To [`Request::Counters`].
    Counters(MachineCounters),
    /// Not done.
    Failed(Failure),
}

/// What a machine has counted, since it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineCounters {
    /// How often its processors have left the guest for the VMM, by reason.
    pub exits: BTreeMap<String, u64>,
    /// Its devices.
    pub devices: Vec<DeviceCounters>,
}

/// What one device has counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCounters {
    /// What it is, e.g. "network".
    pub kind: String,
    /// The number of its place in the machine.
    pub place: u8,
    /// By what they count.
    pub numbers: BTreeMap<String, u64>,
}

impl From<backend_api::MachineCounters> for MachineCounters {
    fn from(counters: backend_api::MachineCounters) -> Self {
        let devices = counters.devices.into_iter();
        Self {
            exits: owned(counters.exits),
            devices: devices
                .map(|device| DeviceCounters {
                    kind: device.kind.to_owned(),
                    place: device.place,
                    numbers: owned(device.numbers),
                })
                .collect(),
        }
    }
}

fn owned(numbers: backend_api::Numbers) -> BTreeMap<String, u64> {
    let numbers = numbers.into_iter();
    numbers
        .map(|(name, number)| (name.to_owned(), number))
        .collect()
}

/// One process inside a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessEntry {
    /// In the guest.
    pub pid: u32,
    /// In the guest.
    pub ppid: u32,
    /// In the container.
    pub uid: u32,
    /// Processor time used, in milliseconds.
    pub cpu_time_ms: u64,
    /// Seconds since the epoch.
    pub started: i64,
    /// Command line.
    pub command: String,
}

/// Why something was not done, for other processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What callers tell apart.
    pub kind: FailureKind,
    /// One text with the whole chain of causes.
    pub message: String,
}

/// Causes that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The program is not there: exit code 127.
    CommandNotFound,
    /// The program cannot be run: exit code 126.
    CommandNotExecutable,
    /// Not in this state.
    State,
    /// Anything else.
    Other,
}

/// From whoever stands for a process on the host, to the driver.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessRequest {
    /// Signal the process.
    Signal(u8),
    /// Its terminal has changed.
    Resize {
        /// Characters.
        rows: u16,
        /// Characters.
        columns: u16,
    },
}

/// From the driver, about one process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessEvent {
    /// It runs.
    Started,
    /// It could not be started.
    Failed(Failure),
    /// It ended and all its output is written.
    Exited(ExitStatus),
}
