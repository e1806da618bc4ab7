//! What can go wrong with a sandbox's network.

use std::io;
use std::path::PathBuf;

/// Why a sandbox cannot have its network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The namespace cannot be used.
    #[error("network namespace {path}")]
    Namespace {
        /// As it was given.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused something in the namespace.
    #[error("network: cannot {action}")]
    Kernel {
        /// What was tried.
        action: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An interface, address or route that a guest cannot have.
    #[error("unsupported: {what}: {why}")]
    Unsupported {
        /// Which one.
        what: String,
        /// Why not, and what to do instead.
        why: &'static str,
    },
    /// More interfaces than the machine has network cards.
    #[error(
        "network interface {interface}: the virtual machine's {cards} network cards are all in use; raise `spare_network_cards` in config.toml"
    )]
    NoCard {
        /// The one without.
        interface: String,
        /// How many cards there are.
        cards: usize,
    },
    /// Something else takes the interface's frames.
    #[error(
        "network interface {interface} is connected to another sandbox; sandboxes cannot share a network namespace"
    )]
    Taken {
        /// Which one.
        interface: String,
    },
}

impl NetworkError {
    /// For `map_err` on what the kernel is asked to do.
    pub(crate) fn kernel(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Kernel { action, source }
    }
}
