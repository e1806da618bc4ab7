//! `-info`: what the runtime is, for containerd 2.

use std::io::Write;

use anyhow::{Context as _, Result};
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};

/// As containerd knows us.
pub const RUNTIME: &str = "io.containerd.cofferdam.v2";

/// Prints it.
pub fn run() -> Result<()> {
    let mut version = RuntimeVersion::new();
    version.version = env!("CARGO_PKG_VERSION").to_owned();
    let mut info = RuntimeInfo::new();
    info.name = RUNTIME.to_owned();
    info.version = MessageField::some(version);
    let bytes = info.write_to_bytes().context("cannot encode the answer")?;
    std::io::stdout()
        .write_all(&bytes)
        .context("cannot answer containerd")
}
