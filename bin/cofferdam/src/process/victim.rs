//! The hidden command that is killed for want of memory, so that engines hear that a container was.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

/// Runs the command; its end is a signal, unless the kernel finds memory for it.
pub fn run() -> Result<ExitCode> {
    sandbox::cgroup::want::want().context("cannot wait for the order")?;
    Ok(ExitCode::SUCCESS)
}
