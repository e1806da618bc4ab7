//! Connections of the guest to programs of its host: the VMM cannot make a socket, so its driver does.
//!
//! They have a socket pair of their own (`SOCK_SEQPACKET`), which only the VMM begins to talk on, with messages as on the
//! control socket. Answers come in any order.

use serde::{Deserialize, Serialize};

use crate::Handle;

/// The guest wants to be connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// By which the answer is known.
    pub ticket: u32,
    /// The port of the host.
    pub port: u32,
}

/// What became of a [`Call`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Called {
    /// The call's.
    pub ticket: u32,
    /// A connected stream that does not block; nothing when there is nobody.
    pub stream: Option<Handle>,
}
