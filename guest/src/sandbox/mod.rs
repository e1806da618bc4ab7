//! The guest as a whole: its identity, its events, its end.

mod configure;
mod devices;
mod events;
mod plug;
mod resize;
mod shutdown;

pub use configure::ConfigureError;
pub use events::{EventError, Events};
pub(crate) use plug::{DeviceError, plug, unplug};
pub use resize::ResizeError;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use crate::container::Containers;
use crate::network::Network;

/// One sandbox.
#[derive(Debug)]
pub struct Sandbox {
    /// Its containers.
    pub containers: Arc<Containers>,
    /// What happened without being asked for.
    pub events: Events,
    /// Its network.
    pub network: Network,
    /// The name it was given, once it has one.
    identity: Mutex<Option<String>>,
    /// How much memory there was then, in bytes.
    boot_memory: AtomicU64,
}

impl Sandbox {
    /// A guest without identity.
    #[must_use]
    pub fn new(containers: Arc<Containers>, events: Events) -> Self {
        Self {
            containers,
            events,
            network: Network::default(),
            identity: Mutex::default(),
            boot_memory: AtomicU64::default(),
        }
    }

    /// Whether it was given an identity, or is being given one.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        let identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        identity.is_some()
    }
}
