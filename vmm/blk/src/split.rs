//! The engine with `io_uring`: a ring for what it does without a thread of the kernel, a thread of ours for the rest.
//!
//! Flushes, discards, and writes that go through the host's cache can't be done without waiting: most file systems would
//! have the ring hand them to a thread of the kernel, which is no quicker than ours, and of which the last one looks
//! around every five seconds for as long as the ring lives. Ours sleeps until there is something to do.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vmm_virtio::{Registrar, Watch};

use crate::engine::{Access, Begin, Done, IN_FLIGHT, Job, Work};
use crate::ring::Ring;
use crate::worker::Worker;

pub(crate) struct Split {
    ring: Ring,
    /// None for a disk that is only read.
    worker: Option<Worker>,
}

impl Split {
    pub(crate) fn new(file: &Arc<OwnedFd>, access: Access, begin: Begin) -> io::Result<Self> {
        let ring = Ring::new(file, access)?;
        let worker = if access.write {
            Some(Worker::new(file, begin)?)
        } else {
            None
        };
        Ok(Self { ring, worker })
    }

    fn in_flight(&self) -> usize {
        self.ring.in_flight() + self.worker.as_ref().map_or(0, Worker::in_flight)
    }
}

impl Work for Split {
    fn push(&mut self, job: Box<Job>) -> Result<(), Box<Job>> {
        if !self.room() {
            return Err(job);
        }
        match &mut self.worker {
            Some(worker) if !self.ring.is_for(&job) => worker.push(job),
            _ => self.ring.push(job),
        }
    }

    fn room(&self) -> bool {
        self.in_flight() < usize::from(IN_FLIGHT)
    }

    fn submit(&mut self) {
        self.ring.submit();
        if let Some(worker) = &mut self.worker {
            worker.submit();
        }
    }

    fn watch(&self, events: &Registrar, token: u32) -> io::Result<Vec<Watch>> {
        let mut watches = self.ring.watch(events, token)?;
        if let Some(worker) = &self.worker {
            watches.extend(worker.watch(events, token)?);
        }
        Ok(watches)
    }

    fn heard(&mut self) {
        self.ring.heard();
        if let Some(worker) = &mut self.worker {
            worker.heard();
        }
    }

    fn reap(&mut self, done: &mut Vec<Done>) {
        self.ring.reap(done);
        if let Some(worker) = &mut self.worker {
            worker.reap(done);
        }
    }

    fn stop(&mut self) {
        self.ring.stop();
        if let Some(worker) = &mut self.worker {
            worker.stop();
        }
    }
}
