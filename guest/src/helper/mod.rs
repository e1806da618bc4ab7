//! The process that makes containers and joins them.
//!
//! Making a container means forking and changing namespaces, which a process with threads cannot
//! do safely. So the agent forks the *helper* before it has threads. For each [`Request`] the
//! helper forks a *worker* as a child of the agent's, which does the work and ends; what it
//! makes are the agent's children too, so that the agent alone reaps.
//!
//! ```text
//! agent ──request, descriptors──► helper ──fork──► worker ──fork──► container's process
//!   ▲                                                │                     │
//!   └────────────── report (lines in a pipe)  ◄────┴─────────────────────┘
//! ```
//!
//! The report's writing end closes itself when the container's process executes its command, so
//! the end of the report, with no failure in it, means that the command runs.

mod capability;
mod client;
mod command;
mod create;
mod exec;
mod executor;
mod joined;
mod passwd;
mod processors;
mod report;
mod server;
mod userns;

pub use client::{Helper, HelperError, Ordered, Stdio};
pub use report::{Report, ReportReader};
pub use server::start;

pub(crate) use create::chain;
pub(crate) use passwd::home_in;

use std::path::PathBuf;

use oci_spec::runtime::{Capabilities, LinuxSeccomp, Process};
use serde::{Deserialize, Serialize};

/// What the helper is to do.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Make a container and its first process, which waits for its start.
    Create(Box<CreateRequest>),
    /// Run another process in a container.
    Exec(Box<ExecRequest>),
}

/// A container to be made.
#[derive(Debug, Serialize, Deserialize)]
pub struct CreateRequest {
    /// The container's name.
    pub id: String,
    /// Folder that holds `config.json`.
    pub bundle: PathBuf,
    /// Whether it is to have a user namespace.
    pub user_namespace: bool,
    /// Folder for what must be remembered of containers; one of the container's name is made.
    pub state: PathBuf,
    /// Socket that takes the terminal, if there is one.
    pub console: Option<PathBuf>,
    /// The filter of system calls to load right before the command is executed; what libcontainer loads itself it
    /// loads before its own last messages, which a strict filter forbids.
    pub seccomp: Option<LinuxSeccomp>,
    /// Capabilities that its first process inherits.
    pub inheritable: Capabilities,
}

/// A process to be run in a container.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExecRequest {
    /// The container's first process.
    pub init: i32,
    /// The process.
    pub process: Process,
    /// Namespaces to join, as flags of clone(2).
    pub namespaces: u32,
    /// Folder of the container's cgroup.
    pub cgroup: PathBuf,
    /// The container's filter of system calls.
    pub seccomp: Option<LinuxSeccomp>,
    /// Execution domain of the container.
    pub personality: Option<u32>,
    /// Socket that takes the terminal, if there is one.
    pub console: Option<PathBuf>,
}

/// Descriptors with a request, in this order: the request, the report, stdin, stdout, stderr.
const DESCRIPTORS: usize = 5;
