//! From the guest to the descriptor.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vm_memory::VolatileSlice;
use vmm_virtio::{Broken, Flags, Memory, Queue, Registrar, Watch, total, write_vectored};

use crate::statistics::Statistics;

/// How much is kept for a descriptor that is full, and taken from one request. Linux prints at most a page at once.
const KEPT: usize = 64 << 10;

/// The watch stands before what it watches.
pub(crate) struct Output {
    watch: Option<Watch>,
    file: File,
    kept: VecDeque<u8>,
    statistics: Statistics,
}

impl Output {
    pub(crate) fn new(file: File, statistics: Statistics) -> Self {
        Self {
            watch: None,
            file,
            kept: VecDeque::new(),
            statistics,
        }
    }

    /// Takes what the driver has printed.
    pub(crate) fn print(
        &mut self,
        queue: &mut Queue,
        memory: &Memory,
        events: &Registrar,
    ) -> Result<(), Broken> {
        for _ in 0..queue.size() {
            let Some(chain) = queue.pop(memory)? else {
                queue.notify()?;
                if queue.listen()? {
                    queue.again();
                }
                self.go_on(events);
                return Ok(());
            };
            let head = chain.head();
            self.take(chain.readable);
            queue.complete(head, 0)?;
        }
        queue.notify()?;
        queue.again();
        self.go_on(events);
        Ok(())
    }

    fn take(&mut self, mut slices: Vec<VolatileSlice<'_>>) {
        let length = total(&slices);
        if length > KEPT {
            self.statistics.lost(length - KEPT);
            truncate(&mut slices, KEPT);
        }
        let written = if self.kept.is_empty() {
            self.outcome(write_vectored(&self.file, &slices))
        } else {
            Some(0)
        };
        let length = total(&slices);
        match written {
            Some(written) => self.keep(&slices, written.min(length)),
            None => self.statistics.lost(length),
        }
    }

    /// Keeps all but the first `written` bytes. The oldest make way: the last words of a guest are worth the most.
    fn keep(&mut self, slices: &[VolatileSlice<'_>], written: usize) {
        let mut skip = written;
        for slice in slices {
            let Ok(rest) = slice.offset(skip.min(slice.len())) else {
                continue;
            };
            skip -= slice.len() - rest.len();
            let mut bytes = vec![0; rest.len()];
            rest.copy_to(&mut bytes[..]);
            self.kept.extend(bytes);
        }
        let excess = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..excess);
        self.statistics.lost(excess);
    }

    /// The descriptor takes more, or its other end is gone.
    pub(crate) fn writable(&mut self, flags: Flags) {
        if flags.writable() {
            self.flush();
        }
        if self.kept.is_empty() {
            self.watch = None;
        }
    }

    /// Waits for the descriptor to take more if something is kept.
    pub(crate) fn go_on(&mut self, events: &Registrar) {
        if self.kept.is_empty() || self.watch.is_some() {
            return;
        }
        let output = crate::OUTPUT;
        match events.watch(&self.file, Flags::WRITE, output) {
            Ok(watch) => self.watch = Some(watch),
            // A plain file can't be watched, and is never full.
            Err(error) => {
                tracing::warn!(%error, "a console's output can't be waited for");
                self.lose();
            }
        }
    }

    /// Waits for nothing any more. It may be the last chance to write what is kept.
    pub(crate) fn pause(&mut self) {
        self.watch = None;
        self.flush();
    }

    /// Writes of what is kept as much as the descriptor takes, and waits for it to take more; false when there is nothing
    /// more to write, or it does not.
    pub(crate) fn finish(&mut self, patience: Duration) -> bool {
        self.flush();
        if self.kept.is_empty() {
            return false;
        }
        let Ok(patience) = Timespec::try_from(patience) else {
            return false;
        };
        let mut ready = [PollFd::new(&self.file, PollFlags::OUT)];
        match poll(&mut ready, Some(&patience)) {
            Ok(count) => count > 0,
            Err(error) => error == rustix::io::Errno::INTR,
        }
    }

    /// Writes of what is kept as much as the descriptor takes.
    fn flush(&mut self) {
        while !self.kept.is_empty() {
            let (front, _) = self.kept.as_slices();
            let written = (&self.file).write(front);
            match self.outcome(written) {
                Some(0) => return,
                Some(written) => drop(self.kept.drain(..written)),
                None => self.lose(),
            }
        }
    }

    /// How much was written; none when nobody will ever read.
    fn outcome(&self, written: io::Result<usize>) -> Option<usize> {
        match written {
            Ok(written) => {
                self.statistics.printed(written);
                Some(written)
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Some(0)
            }
            Err(_) => None,
        }
    }

    fn lose(&mut self) {
        self.statistics.lost(self.kept.len());
        self.kept.clear();
    }
}

fn truncate(slices: &mut Vec<VolatileSlice<'_>>, mut room: usize) {
    slices.retain_mut(|slice| {
        let Ok(part) = slice.subslice(0, slice.len().min(room)) else {
            return false;
        };
        room -= part.len();
        *slice = part;
        !part.is_empty()
    });
}
