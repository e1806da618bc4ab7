//! The engine on `io_uring`.
//!
//! What a ring does is seen by no list of system calls. So it is shut as far as it goes before it is used: it knows one
//! file, and reading, writing if that is what it is for, and cancelling. A process that is taken over finds no way around
//! its seccomp filter here.
#![expect(unsafe_code, reason = "submissions point to memory")]
// UNSAFETY: what a submission points to must stay as long as the kernel has it. A job's vectors are on the heap and point
// into guest memory that the job keeps mapped; the job stays in `jobs`, unchanged, until its completion was seen. `stop`
// waits for all completions, and so does Drop, before the jobs go.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::register::Restriction;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fixed};
use io_uring::{IoUring, opcode};
use vmm_virtio::{EventFd, Flags as Ready, Registrar, Watch};

use crate::engine::{Access, Action, Done, IN_FLIGHT, Job, Work};

/// The disk's place among the ring's files.
const FILE: Fixed = Fixed(0);

/// The number of what cancels all others.
const CANCEL: u64 = u64::MAX;

/// Kernel threads for what takes its time, and for what may never end, of which there is nothing.
const THREADS: [u32; 2] = [2, 1];

/// What is more than this is not even begun in the event loop: copying it from the host's cache would keep the loop.
const LARGE: u64 = 2 << 20;

pub(crate) struct Ring {
    ring: IoUring,
    jobs: Vec<Option<Box<Job>>>,
    free: Vec<u16>,
    access: Access,
    /// Is ready when the kernel has to be asked again to take what was pushed.
    again: EventFd,
    asks_again: bool,
}

impl Ring {
    pub(crate) fn new(file: &Arc<OwnedFd>, access: Access) -> io::Result<Self> {
        let again = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        let build = |interrupt: bool| {
            let mut builder = IoUring::builder();
            builder.setup_r_disabled();
            if !interrupt {
                // The loop looks for completions by itself; before Linux 5.19 it has to be interrupted for them.
                builder.setup_coop_taskrun();
            }
            builder.build(u32::from(IN_FLIGHT))
        };
        let ring = match build(false) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => build(true)?,
            built => built?,
        };
        let submitter = ring.submitter();
        submitter.register_files(&[file.as_raw_fd()])?;
        submitter.register_iowq_max_workers(&mut THREADS.clone())?;
        let flags = Flags::FIXED_FILE.bits();
        let mut restrictions = vec![
            Restriction::sqe_op(opcode::Readv::CODE),
            Restriction::sqe_op(opcode::AsyncCancel2::CODE),
            Restriction::sqe_flags_allowed(flags | Flags::ASYNC.bits()),
            Restriction::sqe_flags_required(flags),
        ];
        if writes(access) {
            restrictions.push(Restriction::sqe_op(opcode::Writev::CODE));
        }
        submitter.register_restrictions(&mut restrictions)?;
        submitter.register_enable_rings()?;
        Ok(Self {
            ring,
            jobs: (0..IN_FLIGHT).map(|_| None).collect(),
            free: (0..IN_FLIGHT).rev().collect(),
            access,
            again,
            asks_again: false,
        })
    }

    /// Whether it does this without a thread of the kernel. Reads through the host's cache wait for their pages without
    /// one, writes do not.
    pub(crate) fn is_for(&self, job: &Job) -> bool {
        let able = match job.action {
            Action::Read => true,
            Action::Write { .. } => writes(self.access),
            Action::Sync | Action::Discard | Action::Zero { .. } => false,
        };
        able && job.buffers.left() <= LARGE
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.jobs.len() - self.free.len()
    }

    /// False when the submission queue is full.
    fn queue(&mut self, entry: &Entry) -> bool {
        // SAFETY: what the entry points to stays, see the head of this file.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }
}

/// Whether a ring is for writes.
fn writes(access: Access) -> bool {
    access.write && access.direct
}

/// None for what a ring does not do.
fn entry(job: &Job) -> Option<Entry> {
    let vectors = job.buffers.vectors();
    // At most 1024.
    let count = vectors.len() as u32;
    let entry = match job.action {
        Action::Read => opcode::Readv::new(FILE, vectors.as_ptr(), count)
            .offset(job.offset)
            .build(),
        Action::Write { durable } => opcode::Writev::new(FILE, vectors.as_ptr(), count)
            .offset(job.offset)
            .rw_flags(if durable { libc::RWF_DSYNC } else { 0 })
            .build(),
        Action::Sync | Action::Discard | Action::Zero { .. } => return None,
    };
    Some(if job.buffers.left() > LARGE {
        entry.flags(Flags::ASYNC)
    } else {
        entry
    })
}

impl Work for Ring {
    fn push(&mut self, job: Box<Job>) -> Result<(), Box<Job>> {
        let Some(entry) = entry(&job) else {
            return Err(job);
        };
        let Some(slot) = self.free.pop() else {
            return Err(job);
        };
        let entry = entry.user_data(u64::from(slot));
        // From here on the job does not change; its vectors, which the entry points to, don't move with it.
        self.jobs[usize::from(slot)] = Some(job);
        if self.queue(&entry) {
            return Ok(());
        }
        // The kernel has not taken what was pushed before.
        self.free.push(slot);
        self.jobs[usize::from(slot)].take().map_or(Ok(()), Err)
    }

    fn room(&self) -> bool {
        !self.free.is_empty()
    }

    fn submit(&mut self) {
        while !self.ring.submission().is_empty() {
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    // Short of memory, or of room for completions: with the loop's next turn. It fails only when the
                    // event is pending anyway.
                    let _ = self.again.write(1);
                    self.asks_again = true;
                    return;
                }
            }
        }
    }

    fn watch(&self, events: &Registrar, token: u32) -> io::Result<Vec<Watch>> {
        // The ring is ready as long as there are completions: what is done at once is taken without the loop being told.
        Ok(vec![
            events.watch(&self.ring, Ready::READ, token)?,
            events.watch(&self.again, Ready::READ, token)?,
        ])
    }

    fn heard(&mut self) {
        if std::mem::take(&mut self.asks_again) {
            let _ = self.again.read();
        }
    }

    fn reap(&mut self, done: &mut Vec<Done>) {
        for completion in self.ring.completion() {
            let slot = completion.user_data();
            // The kernel answers with what it was given; only what cancels has no slot.
            let (Ok(place), Ok(slot)) = (usize::try_from(slot), u16::try_from(slot)) else {
                continue;
            };
            let Some(job) = self.jobs.get_mut(place).and_then(Option::take) else {
                continue;
            };
            self.free.push(slot);
            let result = u64::try_from(completion.result())
                .map_err(|_| io::Error::from_raw_os_error(-completion.result()));
            done.push(Done { job, result });
        }
    }

    fn stop(&mut self) {
        let mut forgotten = Vec::new();
        let mut cancelled = false;
        loop {
            self.reap(&mut forgotten);
            forgotten.clear();
            if self.in_flight() == 0 {
                return;
            }
            if !cancelled {
                // All of them, in whichever thread they are. A kernel that can't do that lets them come to their ends.
                let all = opcode::AsyncCancel2::new(CancelBuilder::any())
                    .build()
                    .flags(Flags::FIXED_FILE)
                    .user_data(CANCEL);
                // With the queue full it has another try when the kernel has taken some.
                cancelled = self.queue(&all);
            }
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Short of memory for a moment; the ring may not be left before it is empty.
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::engines;

    fn result(ring: &mut Ring, entry: Entry) -> i32 {
        assert!(ring.queue(&entry.user_data(CANCEL)));
        ring.ring.submit_and_wait(1).expect("submits");
        let completion = ring.ring.completion().next().expect("a completion");
        completion.result()
    }

    #[test]
    fn the_ring_does_nothing_but_what_a_disk_needs() {
        let file = Arc::new(tempfile::tempfile().expect("a file").into());
        for (write, direct) in [(true, true), (true, false), (false, true)] {
            let Some(mut ring) = engines::ring(&file, Access { write, direct }) else {
                return;
            };
            let fd = io_uring::types::Fd(file.as_raw_fd());
            let write = opcode::Writev::new(FILE, std::ptr::null(), 0).build();
            let mut forbidden = vec![
                opcode::Nop::new().build().flags(Flags::FIXED_FILE),
                opcode::OpenAt::new(io_uring::types::Fd(libc::AT_FDCWD), c"/".as_ptr()).build(),
                opcode::Fsync::new(FILE).build(),
                opcode::Fallocate::new(FILE, 1).build(),
                opcode::Readv::new(fd, std::ptr::null(), 0).build(),
                opcode::Readv::new(FILE, std::ptr::null(), 0)
                    .build()
                    .flags(Flags::IO_LINK),
            ];
            if writes(ring.access) {
                assert_eq!(result(&mut ring, write), 0);
            } else {
                forbidden.push(write);
            }
            for entry in forbidden {
                assert_eq!(result(&mut ring, entry), -libc::EACCES);
            }
            let registered = ring.ring.submitter().register_files_update(0, &[0]);
            assert_eq!(
                registered.expect_err("is refused").raw_os_error(),
                Some(libc::EACCES)
            );
            let allowed = opcode::Readv::new(FILE, std::ptr::null(), 0).build();
            assert_eq!(result(&mut ring, allowed), 0);
        }
    }
}
