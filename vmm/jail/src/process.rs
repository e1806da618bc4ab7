//! What a process gives up as a whole.
#![expect(unsafe_code, reason = "mallopt by libc")]
// UNSAFETY: one call without pointers.

use std::io;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use crate::JailError;

/// The newest Landlock that this was written for. An older kernel does what it knows.
const NEWEST: ABI = ABI::V9;

/// Has all threads allocate from one heap. With one for each thread the C library opens a file of `/proc` when it shrinks
/// one, which no list allows; and each costs memory of its own.
pub(crate) fn keep_one_heap() {
    // SAFETY: it sets a number, and nobody else allocates meanwhile: there is one thread. It can't fail for this value.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// No other process of the same user may look into this one, and none of its memory is ever written to a file.
pub(crate) fn hide() -> Result<(), JailError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|errno| system("hide from debuggers", errno))
}

/// Gives up all files, TCP, abstract sockets and signals to others, as far as this kernel can. What is open already stays
/// as it is.
///
/// # Errors
/// [`JailError::Files`]; none from a kernel that has no Landlock.
pub fn restrict_files() -> Result<(), JailError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.restrict_self())
        .map(drop)
        .map_err(JailError::Files)
}

/// Lets no file be written beyond so many bytes, a disk's included. Memory that is a file must have its length before.
///
/// # Errors
/// [`JailError::System`].
pub fn limit_files(bytes: u64) -> Result<(), JailError> {
    let both = Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    setrlimit(Resource::Fsize, both).map_err(|errno| system("limit files", errno))
}

/// Has no more memory locked than is already: rings of disks are counted so by some kernels.
///
/// # Errors
/// [`JailError::System`].
pub fn limit_locked() -> Result<(), JailError> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Memlock, none).map_err(|errno| system("limit locked memory", errno))
}

pub(crate) fn system(step: &'static str, source: impl Into<io::Error>) -> JailError {
    JailError::System {
        step,
        source: source.into(),
    }
}
