//! Why a process can't be confined.

use std::io;

/// Why a process can't be confined.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// The operating system's answer to one of the steps.
    #[error("cannot {step}")]
    System {
        /// What was to be done.
        step: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A list can't be made into a filter, or the kernel refuses it.
    #[error("cannot filter system calls")]
    Filter(#[source] seccompiler::Error),
    /// A rule can't be made into a part of a filter.
    #[error("cannot build the filter of system calls")]
    Rule(#[source] seccompiler::BackendError),
    /// The kernel has Landlock, but does not take the rules.
    #[error("cannot give up files with landlock")]
    Files(#[source] landlock::RulesetError),
}
