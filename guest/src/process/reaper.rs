//! The one place where the agent's children are waited for.
//!
//! A process may end before the agent has read its id from the report of the worker that made
//! it. So ends that nobody waits for are kept for as long as any worker is at work.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, or 128 + signal.
    pub status: u32,
    /// The signal that ended it, 0: none.
    pub signal: u32,
}

impl Exit {
    fn of(status: WaitStatus) -> Option<Self> {
        if let Some(code) = status.exit_status() {
            return Some(Self {
                status: code.cast_unsigned(),
                signal: 0,
            });
        }
        let signal = status.terminating_signal()?.cast_unsigned();
        Some(Self {
            status: 128 + signal,
            signal,
        })
    }
}

#[derive(Debug, Default)]
struct Ledger {
    waiting: HashMap<i32, oneshot::Sender<Exit>>,
    /// With the number of ends seen before.
    unclaimed: HashMap<i32, (u64, Exit)>,
    expectations: usize,
    /// Ends seen so far.
    seen: u64,
}

/// Waits for all children.
#[derive(Debug, Default)]
pub struct Reaper {
    ledger: Mutex<Ledger>,
}

impl Reaper {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reaps until `guarded`, a child that must not end, has ended.
    ///
    /// # Errors
    /// When signals cannot be received or children not be waited for.
    pub async fn run(&self, guarded: i32) -> io::Result<Exit> {
        let mut signals = signal(SignalKind::child())?;
        loop {
            if let Some(exit) = self.sweep(guarded)? {
                return Ok(exit);
            }
            signals.recv().await;
        }
    }

    /// Reaps all that have ended. One signal may stand for many of them.
    fn sweep(&self, guarded: i32) -> io::Result<Option<Exit>> {
        loop {
            let (pid, status) = match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => (pid.as_raw_nonzero().get(), status),
                Ok(None) | Err(Errno::CHILD) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let Some(exit) = Exit::of(status) else {
                continue;
            };
            if pid == guarded {
                return Ok(Some(exit));
            }
            let mut ledger = self.ledger();
            let before = ledger.seen;
            ledger.seen += 1;
            if let Some(waiter) = ledger.waiting.remove(&pid) {
                // A container that was given up has no waiter any more.
                let _ = waiter.send(exit);
            } else if ledger.expectations > 0 {
                ledger.unclaimed.insert(pid, (before, exit));
            }
        }
    }

    /// Announces that a process is being made, whose id is not known yet.
    #[must_use]
    pub fn expect(self: &Arc<Self>) -> Expectation {
        let mut ledger = self.ledger();
        ledger.expectations += 1;
        Expectation {
            since: ledger.seen,
            reaper: Arc::clone(self),
        }
    }
}

/// A process that is being made; while this lives no end is forgotten.
#[derive(Debug)]
pub struct Expectation {
    reaper: Arc<Reaper>,
    /// Ends seen before the process can have existed.
    since: u64,
}

impl Expectation {
    /// The process is `pid`: its end, which may have been already.
    #[must_use]
    pub fn claim(self, pid: i32) -> oneshot::Receiver<Exit> {
        let (sender, receiver) = oneshot::channel();
        let mut ledger = self.reaper.ledger();
        match ledger.unclaimed.remove(&pid) {
            Some((before, exit)) if before >= self.since => {
                // The receiver is right here.
                let _ = sender.send(exit);
            }
            // One that ended earlier was another with the same id.
            _ => {
                ledger.waiting.insert(pid, sender);
            }
        }
        drop(ledger);
        receiver
    }
}

impl Drop for Expectation {
    fn drop(&mut self) {
        let mut ledger = self.reaper.ledger();
        ledger.expectations -= 1;
        if ledger.expectations == 0 {
            // A later process may get the same id; what was not claimed was a worker.
            ledger.unclaimed.clear();
        }
    }
}
