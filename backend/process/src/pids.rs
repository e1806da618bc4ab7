//! A PID namespace for a child, made by the thread that starts it.
//!
//! A process can't move itself into one: only children that are started later are in it. And a thread whose children go
//! into another namespace can't start threads, as those would be in its own process and in that namespace at once. So the
//! thread asks for a namespace, starts the child, and takes its request back, whatever came between.
#![expect(unsafe_code, reason = "unshare")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// While this lives, children of the calling thread go into one PID namespace that is new.
pub(crate) struct PidNamespace {
    /// Where its children belong.
    before: Option<OwnedFd>,
}

impl PidNamespace {
    /// Makes it.
    pub fn for_children() -> io::Result<Self> {
        let before = open(
            c"/proc/thread-self/ns/pid_for_children",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        // SAFETY: the descriptor table, the only thing that can be unsafe to unshare, stays.
        unsafe { unshare_unsafe(UnshareFlags::NEWPID) }?;
        Ok(Self {
            before: Some(before),
        })
    }

    /// Children belong where they did again.
    ///
    /// # Errors
    /// The operating system's answer: this thread can start no thread from now on.
    pub fn leave(mut self) -> io::Result<()> {
        self.restore()
    }

    fn restore(&mut self) -> io::Result<()> {
        if let Some(before) = self.before.take() {
            move_into_link_name_space(before.as_fd(), Some(LinkNameSpaceType::ProcessID))?;
        }
        Ok(())
    }
}

impl Drop for PidNamespace {
    fn drop(&mut self) {
        // Nobody is left who could be told; a thread that it failed for says so when it starts another.
        let _ = self.restore();
    }
}
