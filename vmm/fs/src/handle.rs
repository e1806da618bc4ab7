//! What the machine can see of a share from outside.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// How the server is, as far as the device knows. It looks only while it has a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// It waits for a driver.
    Idle,
    /// It was told of a driver and has not confirmed everything yet.
    Starting,
    /// It serves the guest.
    Serving,
    /// It is dead or has misbehaved, and why this is thought. The share does not come back.
    Gone(&'static str),
}

/// Tells how a share is. Clones are for the same share.
#[derive(Debug, Clone, Default)]
pub struct Handle(Arc<State>);

#[derive(Debug, Default)]
struct State {
    phase: AtomicU8,
    starts: AtomicU64,
    gone: OnceLock<&'static str>,
}

const IDLE: u8 = 0;
const STARTING: u8 = 1;
const SERVING: u8 = 2;

impl Handle {
    /// How the server is.
    #[must_use]
    pub fn server(&self) -> Server {
        if let Some(why) = self.0.gone.get() {
            return Server::Gone(why);
        }
        match self.0.phase.load(Ordering::Acquire) {
            STARTING => Server::Starting,
            SERVING => Server::Serving,
            _ => Server::Idle,
        }
    }

    /// How often a driver has started the device.
    #[must_use]
    pub fn starts(&self) -> u64 {
        self.0.starts.load(Ordering::Relaxed)
    }

    pub(crate) fn idle(&self) {
        self.0.phase.store(IDLE, Ordering::Release);
    }

    pub(crate) fn starting(&self) {
        self.0.starts.fetch_add(1, Ordering::Relaxed);
        self.0.phase.store(STARTING, Ordering::Release);
    }

    pub(crate) fn serving(&self) {
        self.0.phase.store(SERVING, Ordering::Release);
    }

    pub(crate) fn gone(&self, why: &'static str) {
        // The first reason is the true one.
        let _ = self.0.gone.set(why);
    }
}
