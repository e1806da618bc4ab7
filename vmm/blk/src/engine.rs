//! What both engines have alike.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vmm_virtio::{Registrar, Watch};

use crate::buffers::Buffers;
use crate::request::Request;
use crate::split::Split;
use crate::worker::Worker;

/// How many requests of one disk are on their way at most.
pub const IN_FLIGHT: u16 = 256;

/// The ways to the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// `io_uring`, with a thread for what it would need threads for.
    Uring,
    /// A thread of the disk's own that does one thing after the other.
    Worker,
}

/// What is done with a file, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access {
    /// It is written to.
    pub(crate) write: bool,
    /// Past the host's cache.
    pub(crate) direct: bool,
}

/// What a disk's thread does first: it gives up what it does not need.
pub type Begin = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

/// What is to be done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Read,
    /// `durable`: on the medium before it is done.
    Write {
        durable: bool,
    },
    /// What was written before is on the medium.
    Sync,
    /// The contents are not needed any more.
    Discard,
    /// Zeros from now on; `unmap`: the file may forget where they are.
    Zero {
        unmap: bool,
    },
}

impl Action {
    /// How `fallocate` is told.
    pub(crate) fn mode(self) -> i32 {
        let how = match self {
            Self::Zero { unmap: false } => libc::FALLOC_FL_ZERO_RANGE,
            _ => libc::FALLOC_FL_PUNCH_HOLE,
        };
        how | libc::FALLOC_FL_KEEP_SIZE
    }
}

/// Something for an engine to do, and for whom.
pub(crate) struct Job {
    pub(crate) action: Action,
    /// Where in the file.
    pub(crate) offset: u64,
    /// How many bytes: of the buffers what is left, or of the file.
    pub(crate) length: u64,
    pub(crate) buffers: Buffers,
    pub(crate) request: Request,
}

/// What has become of it: how many bytes were moved.
pub(crate) struct Done {
    pub(crate) job: Box<Job>,
    pub(crate) result: io::Result<u64>,
}

/// Does jobs, in any order.
pub(crate) trait Work: Send {
    /// Takes a job, to be begun by [`submit`](Self::submit). It comes back when [`IN_FLIGHT`] are on their way.
    fn push(&mut self, job: Box<Job>) -> Result<(), Box<Job>>;

    /// Whether there is room for another.
    fn room(&self) -> bool;

    /// Begins what was pushed.
    fn submit(&mut self);

    /// Has an event loop tell of this token when jobs may be done, or must be submitted again.
    fn watch(&self, events: &Registrar, token: u32) -> io::Result<Vec<Watch>>;

    /// The loop has told: it is told again of what is done from now on. To be followed by [`submit`](Self::submit) and
    /// [`reap`](Self::reap).
    fn heard(&mut self);

    /// Takes what is done.
    fn reap(&mut self, done: &mut Vec<Done>);

    /// Forgets all jobs. When it returns, none of their buffers is touched any more. See the crate's head for how long
    /// that may take.
    fn stop(&mut self);
}

/// Makes the engine that is asked for, or else the best that there is.
pub(crate) fn start(
    file: &Arc<OwnedFd>,
    access: Access,
    wanted: Option<Engine>,
    begin: Begin,
) -> io::Result<(Engine, Box<dyn Work>)> {
    if wanted != Some(Engine::Worker) {
        match Split::new(file, access, Arc::clone(&begin)) {
            Ok(split) => return Ok((Engine::Uring, Box::new(split))),
            Err(error) if wanted.is_none() && refused(&error) => {
                tracing::info!(%error, "no io_uring for a disk: a thread serves it");
            }
            Err(error) => return Err(error),
        }
    }
    Ok((Engine::Worker, Box::new(Worker::new(file, begin)?)))
}

/// Whether the host has no `io_uring` for us, one that is too old (before Linux 5.15), or no more locked memory, which newer
/// kernels count rings as: rather than being out of something that a thread needs, too.
fn refused(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS | libc::EINVAL | libc::ENOMEM)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_makes_another_engine_do() {
        for (error, other) in [
            (libc::EPERM, true),
            (libc::ENOSYS, true),
            (libc::EINVAL, true),
            (libc::ENOMEM, true),
            (libc::EMFILE, false),
        ] {
            assert_eq!(refused(&io::Error::from_raw_os_error(error)), other);
        }
    }
}
