//! What can go wrong with an image, and what to do about it.

use std::io;
use std::path::PathBuf;

use crate::Digest;

/// An image could not be found, fetched, verified or unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A file of the store, or of a source, could not be used.
    #[error("cannot {action} {path}", path = .path.display())]
    Io {
        /// What was tried, e.g. `open`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file system of the store is full, or would become so.
    #[error("no space left for the image in {path}: free some (`cofferdam rmi`), or move the store", path = .path.display())]
    NoSpace {
        /// The store.
        path: PathBuf,
    },
    /// The store is not usable by this program.
    #[error("the image store {path} {problem}", path = .path.display())]
    Store {
        /// The store or the file in it.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Another process held a lock for too long.
    #[error("gave up waiting for another process that is {what} ({path} stayed locked for {seconds} s)", path = .path.display())]
    Busy {
        /// What the other process does.
        what: &'static str,
        /// The lock.
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The text names nothing that could be an image.
    #[error(
        "{text:?} is not an image: no such file, no directory with an oci-layout file, and not a registry reference ({reason})"
    )]
    BadSource {
        /// What was given.
        text: String,
        /// Why it is not a reference.
        reason: String,
    },
    /// A file or directory was named that holds no image.
    #[error("{path} holds no image: {reason}", path = .path.display())]
    NotAnImage {
        /// The file or directory.
        path: PathBuf,
        /// What was found or missing.
        reason: String,
    },
    /// The archive or layout holds several images and none was chosen.
    #[error("{path} holds several images, choose one as PATH:NAME ({names})", path = .path.display())]
    Ambiguous {
        /// The archive or layout.
        path: PathBuf,
        /// The names in it.
        names: String,
    },
    /// No image of that name or digest is in the store.
    #[error("image {name} is not in the store{hint}")]
    NotFound {
        /// What was asked for.
        name: String,
        /// What to do.
        hint: &'static str,
    },
    /// A short digest fits several images.
    #[error("image id {prefix} fits several images, give more digits")]
    AmbiguousId {
        /// What was given.
        prefix: String,
    },
    /// A container still uses the image.
    #[error("image {name} is used by container {containers}: remove the container first, or force")]
    InUse {
        /// The image.
        name: String,
        /// Its containers.
        containers: String,
    },
    /// The container id cannot be part of a file name.
    #[error(
        "container id {id:?} is not valid: letters, digits, `_`, `.`, `+` and `-`, at most 200"
    )]
    BadContainerId {
        /// What was given.
        id: String,
    },
    /// Not a SHA-256 digest.
    #[error("{text:?} is not a sha256 digest")]
    BadDigest {
        /// What was given.
        text: String,
    },
    /// Content is not what its digest says.
    #[error("{what} is damaged or was tampered with: expected {expected}, got {actual}")]
    DigestMismatch {
        /// The thing, e.g. `layer 2 of docker.io/library/busybox:latest`.
        what: String,
        /// As the manifest or configuration says.
        expected: Digest,
        /// As computed.
        actual: Digest,
    },
    /// Content is not as long as its descriptor says.
    #[error("{what} has {actual} bytes where its descriptor says {expected}")]
    SizeMismatch {
        /// The thing.
        what: String,
        /// As the descriptor says.
        expected: u64,
        /// As counted.
        actual: u64,
    },
    /// Something in the image exceeds a limit.
    #[error("{what} is larger than the limit of {limit} {unit}")]
    TooLarge {
        /// The thing.
        what: String,
        /// The bound.
        limit: u64,
        /// What the bound counts.
        unit: &'static str,
    },
    /// A manifest or index cannot be used.
    #[error("manifest {name} cannot be used: {reason}")]
    BadManifest {
        /// Digest or reference.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// An image configuration cannot be used.
    #[error("image configuration {digest} cannot be used: {reason}")]
    BadConfig {
        /// Digest of the configuration.
        digest: String,
        /// What is wrong.
        reason: String,
    },
    /// The image is for other machines.
    #[error("{name} has no image for {wanted} (it has {found})")]
    WrongPlatform {
        /// Reference or path.
        name: String,
        /// This machine.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// A layer's stream is broken.
    #[error("layer {layer} cannot be read")]
    BadLayer {
        /// The layer.
        layer: String,
        /// What the decoder says.
        #[source]
        source: io::Error,
    },
    /// A layer's compression is not supported.
    #[error("{what} is compressed with {method}, which is not supported: use gzip, zstd or none")]
    Compression {
        /// The layer or archive.
        what: String,
        /// The method.
        method: &'static str,
    },
    /// An entry of a layer is refused.
    #[error("layer {layer}: entry {entry:?} refused")]
    BadEntry {
        /// The layer.
        layer: String,
        /// The path in the layer.
        entry: String,
        /// Why.
        #[source]
        source: BadEntry,
    },
    /// The registry could not be talked to.
    #[error("cannot fetch {what}: {reason}")]
    Registry {
        /// The reference, or a layer of it.
        what: String,
        /// What the registry or the network said.
        reason: String,
    },
    /// The registry has no such image.
    #[error("{reference} does not exist at its registry")]
    NotAtRegistry {
        /// The reference.
        reference: String,
    },
    /// The registry wants other credentials.
    #[error("{registry} refuses access to {reference}{hint}")]
    Unauthorized {
        /// The registry.
        registry: String,
        /// The reference.
        reference: String,
        /// Which credentials were used, and what to do.
        hint: String,
    },
    /// Docker's client configuration cannot be used.
    #[error("{path} cannot be used: {reason}", path = .path.display())]
    BadCredentials {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Why an entry of a layer is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadEntry {
    /// The path goes up.
    #[error("the path contains `..`")]
    Escapes,
    /// The path is empty, or has a NUL or an over-long component.
    #[error("the path is not usable: {0}")]
    BadPath(&'static str),
    /// A parent of the path is not a directory.
    #[error("{0:?} is not a directory")]
    ParentNotDirectory(String),
    /// A device node.
    #[error("it is a {kind} device ({major}:{minor}); device nodes are not taken from images")]
    Device {
        /// `block` or `character`.
        kind: &'static str,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A hard link whose target cannot be linked.
    #[error("its hard link target {target:?} cannot be linked")]
    BadHardLink {
        /// The target.
        target: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A whiteout with an unusable name.
    #[error("the whiteout names nothing that can be hidden")]
    BadWhiteout,
    /// An extended attribute that an image may not set.
    #[error("extended attribute {0:?} may not come from an image")]
    Xattr(String),
    /// A tar feature that is not supported.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// Owner, mode or time out of range.
    #[error("{0} is out of range")]
    OutOfRange(&'static str),
    /// The operating system refused.
    #[error("cannot {action} it")]
    Os {
        /// What was tried.
        action: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl ImageError {
    /// For `map_err` on a file operation; a full disk gets its own variant.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| {
            if is_full(&source) {
                Self::NoSpace { path }
            } else {
                Self::Io {
                    action,
                    path,
                    source,
                }
            }
        }
    }
}

/// True for a full file system and for an exhausted quota.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
