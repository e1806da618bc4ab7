//! What a machine has counted.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::BackendError;

/// Numbers by their names, which say what they count: those that end with `_bytes` count bytes, all others how often.
pub type Numbers = BTreeMap<&'static str, u64>;

/// Counters of a machine, since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineCounters {
    /// How often its processors have left the guest for the VMM, by reason.
    pub exits: Numbers,
    /// Its devices, in the order of their places.
    pub devices: Vec<DeviceCounters>,
}

/// Counters of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceCounters {
    /// What it is, e.g. "network".
    pub kind: &'static str,
    /// The number of its place in the machine.
    pub place: u8,
    /// What it has counted. `kicks` (of the guest) and `interrupts` (for it) are there only if the VMM serves it: not with
    /// vhost and vhost-user. `breaks` counts how often the guest's driver broke the rules so that the device stopped.
    pub numbers: Numbers,
}

/// The ability to tell what was counted.
#[async_trait]
pub trait Count: Send + Sync {
    /// All counters at this moment.
    ///
    /// # Errors
    /// When the machine does not run or the VMM does not answer.
    async fn counters(&self) -> Result<MachineCounters, BackendError>;
}
