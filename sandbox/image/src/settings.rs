//! What a store allows and how it reaches registries.

use std::path::PathBuf;
use std::time::Duration;

/// When a registry is asked for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// Only when the store has no image of that name.
    #[default]
    Missing,
    /// Every time, so that a moved tag is noticed; layers that are present are not fetched again.
    Always,
    /// Never: a name that is not in the store is an error.
    Never,
}

/// How an [`ImageStore`](crate::ImageStore) behaves; [`Settings::default`] suits most.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bounds on what an image may contain.
    pub limits: Limits,
    /// Registries (`host` or `host:port`) that may be reached without TLS when they have none.
    /// Loopback always may.
    pub insecure_registries: Vec<String>,
    /// Docker's client configuration, whose `auths` are used as credentials. `None` looks at
    /// `$DOCKER_CONFIG/config.json` and then `~/.docker/config.json`.
    pub docker_config: Option<PathBuf>,
    /// Longest time to make a connection.
    pub connect_timeout: Duration,
    /// Longest time without a byte from a registry.
    pub read_timeout: Duration,
    /// Attempts for each manifest and layer, the first one included.
    pub attempts: u32,
    /// Longest time to wait for another process that works on the same layer or holds the store.
    pub lock_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            insecure_registries: Vec::new(),
            docker_config: None,
            connect_timeout: Duration::from_secs(20),
            read_timeout: Duration::from_secs(60),
            attempts: 3,
            lock_timeout: Duration::from_secs(30 * 60),
        }
    }
}

/// Bounds on one image. They are far above what real images have and exist so that a hostile
/// image ends in an error rather than in a full disk or memory.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a manifest or index.
    pub manifest_bytes: u64,
    /// Bytes of an image configuration.
    pub config_bytes: u64,
    /// Layers of one image; an overlay mount takes no more than this in one page of options.
    pub layers: usize,
    /// Bytes of one layer after decompression.
    pub layer_bytes: u64,
    /// Files, directories and links in one layer.
    pub layer_entries: u64,
    /// Bytes of a path inside a layer.
    pub path_bytes: usize,
    /// Directories above a path inside a layer.
    pub path_depth: usize,
    /// Bytes of the extended header (long names, extended attributes) of one entry.
    pub header_bytes: u64,
    /// Free bytes that an import leaves on the store's file system.
    pub keep_free_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_bytes: 4 << 20,
            config_bytes: 8 << 20,
            layers: 200,
            layer_bytes: 64 << 30,
            layer_entries: 5_000_000,
            path_bytes: 4095,
            path_depth: 256,
            header_bytes: 1 << 20,
            keep_free_bytes: 64 << 20,
        }
    }
}
