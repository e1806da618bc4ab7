//! What a child may not do.

use std::ffi::CStr;

/// A user that a child runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups; no others are kept.
    pub groups: Vec<u32>,
}

/// A character device that the host keeps to root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Its name in `/dev`.
    pub name: &'static CStr,
    /// Its major and minor numbers.
    pub number: (u32, u32),
}

/// How much of the kernel's a child may use; it has the caller's share of what is not said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Open descriptors.
    pub descriptors: Option<u64>,
    /// Processes and threads of its user, in all.
    pub processes: Option<u64>,
    /// Bytes of locked memory.
    pub locked_bytes: Option<u64>,
}

/// What a child may not do, beside what every child may not: gain privileges by exec, dump core, use the caller's
/// session, environment, working directory and descriptors, outlive the caller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confinement {
    /// The user to become; leaving root drops all capabilities.
    pub identity: Option<Identity>,
    /// Whether the child gets mount, IPC, UTS and network namespaces of its own, all mounts seen read-only. Needs root.
    pub namespaces: bool,
    /// Whether the child sees nothing of this machine: its root is an empty folder that nobody can write to, and there
    /// are no processes but its own. Needs `namespaces`, and a program that is linked statically: in an empty root there
    /// is no loader for another, and starting it fails as if the program were missing.
    pub alone: bool,
    /// A device that the child gets as its own, in a `/dev` that holds nothing else. Needs `namespaces` and an
    /// identity; there is no `/dev` for one that is alone.
    pub device: Option<Device>,
    /// How much it may use.
    pub limits: Limits,
}
