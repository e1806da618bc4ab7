//! What an import tells its caller while it works.

use crate::Digest;

/// Receives the steps of a long import; called from the importing thread and from the thread
/// that downloads, so it should return quickly.
pub trait Progress: Send + Sync {
    /// One thing happened.
    fn event(&self, event: Event<'_>);
}

/// One step of an import.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The manifest of this name is being looked up at its registry.
    Resolving {
        /// The full name.
        reference: &'a str,
    },
    /// Bytes of a compressed layer arrived.
    Downloading {
        /// Digest of the compressed layer.
        layer: &'a Digest,
        /// Bytes so far.
        done: u64,
        /// Bytes in all, as the manifest says.
        total: u64,
    },
    /// The transfer failed and starts again.
    Retrying {
        /// What is fetched again.
        what: &'a str,
        /// Number of the attempt that begins, from 2.
        attempt: u32,
        /// What went wrong.
        reason: &'a str,
    },
    /// Compressed bytes of a layer were unpacked.
    Unpacking {
        /// Digest of the uncompressed layer.
        layer: &'a Digest,
        /// Position of the layer in the image, from 0.
        index: usize,
        /// Number of layers in the image.
        layers: usize,
        /// Bytes so far.
        done: u64,
        /// Bytes in all, where the manifest says.
        total: Option<u64>,
    },
    /// The layer is in the store (it may have been there before).
    LayerReady {
        /// Digest of the uncompressed layer.
        layer: &'a Digest,
        /// True when nothing had to be done.
        reused: bool,
    },
    /// Another process holds what this one needs; it waits.
    Waiting {
        /// What the other process is doing.
        what: &'a str,
    },
    /// Something worth telling that does not stop the import.
    Note {
        /// One sentence.
        text: &'a str,
    },
}

/// Reports nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _event: Event<'_>) {}
}
