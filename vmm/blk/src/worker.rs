//! The engine without `io_uring`: one thread that does one job after the other.
#![expect(unsafe_code, reason = "preadv2 and pwritev2 by libc")]
// UNSAFETY: calls with vectors that point into memory which the job keeps mapped (`buffers`); the job outlives the call.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::fs::FallocateFlags;
use vmm_virtio::{EventFd, Flags, Registrar, Watch};

use crate::engine::{Action, Begin, Done, IN_FLIGHT, Job, Work};

pub(crate) struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    in_flight: usize,
    /// Jobs were pushed that the thread was not told of.
    pushed: bool,
}

struct Shared {
    state: Mutex<State>,
    /// For the thread: there is something to do.
    todo: Condvar,
    /// For who stops it: it has done what it was doing.
    rests: Condvar,
    event: EventFd,
    file: Arc<OwnedFd>,
}

#[derive(Default)]
struct State {
    todo: VecDeque<Box<Job>>,
    done: Vec<Done>,
    busy: bool,
    quit: bool,
}

impl Worker {
    pub(crate) fn new(file: &Arc<OwnedFd>, begin: Begin) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            todo: Condvar::new(),
            rests: Condvar::new(),
            event: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?,
            file: Arc::clone(file),
        });
        let thread = std::thread::Builder::new().name("disk".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || match begin() {
                Ok(()) => shared.run(),
                Err(error) => tracing::error!(%error, "a disk is not served"),
            }
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
            in_flight: 0,
            pushed: false,
        })
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.quit {
            let Some(job) = state.todo.pop_front() else {
                state = self
                    .todo
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.busy = true;
            drop(state);
            let result = perform(&self.file, &job);
            state = self.lock();
            state.busy = false;
            state.done.push(Done { job, result });
            self.rests.notify_all();
            // It fails only when the counter is full, and then it is ready.
            let _ = self.event.write(1);
        }
    }
}

/// Does one job, for as long as it takes.
fn perform(file: &OwnedFd, job: &Job) -> io::Result<u64> {
    let vectors = job.buffers.vectors();
    // At most 1024, and an offset within a file.
    let (fd, count, offset) = (file.as_raw_fd(), vectors.len() as i32, job.offset as i64);
    let moved = match job.action {
        // SAFETY: the vectors are those of the job, which stays until the call is over.
        Action::Read => unsafe { libc::preadv2(fd, vectors.as_ptr(), count, offset, 0) },
        Action::Write { durable } => {
            let flags = if durable { libc::RWF_DSYNC } else { 0 };
            // SAFETY: as above.
            unsafe { libc::pwritev2(fd, vectors.as_ptr(), count, offset, flags) }
        }
        Action::Sync => {
            rustix::fs::fdatasync(file)?;
            return Ok(0);
        }
        Action::Discard | Action::Zero { .. } => {
            let mode = FallocateFlags::from_bits_retain(job.action.mode().cast_unsigned());
            rustix::fs::fallocate(file, mode, job.offset, job.length)?;
            return Ok(0);
        }
    };
    u64::try_from(moved).map_err(|_| io::Error::last_os_error())
}

impl Work for Worker {
    fn push(&mut self, job: Box<Job>) -> Result<(), Box<Job>> {
        if !self.room() {
            return Err(job);
        }
        self.in_flight += 1;
        self.pushed = true;
        self.shared.lock().todo.push_back(job);
        Ok(())
    }

    fn room(&self) -> bool {
        self.in_flight < usize::from(IN_FLIGHT)
    }

    fn submit(&mut self) {
        if std::mem::take(&mut self.pushed) {
            self.shared.todo.notify_one();
        }
    }

    fn watch(&self, events: &Registrar, token: u32) -> io::Result<Vec<Watch>> {
        Ok(vec![events.watch(
            &self.shared.event,
            Flags::READ,
            token,
        )?])
    }

    fn heard(&mut self) {
        // Nothing to read is as good: it was another that the loop has told of.
        let _ = self.shared.event.read();
    }

    fn reap(&mut self, done: &mut Vec<Done>) {
        let mut state = self.shared.lock();
        self.in_flight = self.in_flight.saturating_sub(state.done.len());
        done.append(&mut state.done);
    }

    fn stop(&mut self) {
        let mut state = self.shared.lock();
        state.todo.clear();
        while state.busy {
            state = self
                .shared
                .rests
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.done.clear();
        self.in_flight = 0;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
        self.shared.lock().quit = true;
        self.shared.todo.notify_one();
        if let Some(thread) = self.thread.take() {
            // It has nothing to say, and it doesn't panic.
            let _ = thread.join();
        }
    }
}
