//! What can go wrong with a virtual machine.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::{Diagnostics, VmExit};

/// The part of a machine's life in which something went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Checking the configuration and gathering resources.
    Create,
    /// Starting the VMM.
    Boot,
    /// While the guest runs.
    Run,
    /// Ending the VMM.
    Stop,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "creating the VM",
            Self::Boot => "booting the VM",
            Self::Run => "running the VM",
            Self::Stop => "stopping the VM",
        })
    }
}

/// What can go wrong with a virtual machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// A file that the machine needs can't be used.
    #[error("creating the VM: cannot use the {what} {}", path.display())]
    File {
        /// What the file is, e.g. "guest kernel".
        what: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// Why it can't be used.
        #[source]
        source: io::Error,
    },
    /// A file is there but is not what it should be.
    #[error("creating the VM: the {what} {} {reason}", path.display())]
    BadFile {
        /// What the file should be, e.g. "guest kernel".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it, as the end of the sentence.
        reason: &'static str,
    },
    /// The configuration asks for something that this backend can't do.
    #[error("creating the VM: {setting} {reason}")]
    Unsupported {
        /// The name and value of the setting.
        setting: String,
        /// Why it can't be, as the end of the sentence.
        reason: &'static str,
    },
    /// The host has less free memory than the guest would get.
    #[error("no memory for the VM: it needs {} MiB, the host has {} MiB available", needed >> 20, available >> 20)]
    NoMemory {
        /// Bytes needed.
        needed: u64,
        /// Bytes that the host could give.
        available: u64,
    },
    /// The host has set fewer huge pages aside than the guest would get.
    #[error(
        "no memory for the VM: it needs {needed} huge pages of 2 MiB, the host has {free} free: raise the sysctl vm.nr_hugepages, or set huge_pages = false"
    )]
    NoHugePages {
        /// Pages needed.
        needed: u64,
        /// Pages that nobody has or has been promised.
        free: u64,
    },
    /// The accelerator can't be used.
    #[error("creating the VM: cannot use {device}")]
    Accelerator {
        /// Its device file.
        device: &'static str,
        /// Why it can't be used.
        #[source]
        source: io::Error,
    },
    /// The operating system refused something.
    #[error("{phase}: {action}")]
    System {
        /// When.
        phase: Phase,
        /// What was tried, e.g. "cannot start /usr/bin/qemu-system-x86_64".
        action: String,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// The VMM ended when it should not have.
    #[error("{phase}: the VMM {exit}{diagnostics}")]
    Exited {
        /// When.
        phase: Phase,
        /// How it ended.
        exit: VmExit,
        /// What it and the guest said last.
        diagnostics: Box<Diagnostics>,
    },
    /// The VMM's control channel gave no answer or a refusal.
    #[error("{phase}: the VMM's monitor {reason}{diagnostics}")]
    Monitor {
        /// When.
        phase: Phase,
        /// What went wrong, as the end of the sentence.
        reason: String,
        /// What the VMM and the guest said last.
        diagnostics: Box<Diagnostics>,
    },
    /// A template cannot be made or used.
    #[error("{phase}: the template {problem}")]
    Template {
        /// When.
        phase: Phase,
        /// What is wrong, as the end of the sentence.
        problem: &'static str,
        /// Why.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The call is not allowed in the state that the machine is in.
    #[error("{phase}: the VM is {state}")]
    State {
        /// What was tried.
        phase: Phase,
        /// The state it is in, e.g. "stopped".
        state: &'static str,
    },
}

/// An error and its causes on one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
