//! runc's command line, one operation per file.

pub mod attach;
pub mod create;
pub mod delete;
pub mod events;
pub mod exec;
pub mod features;
pub mod kill;
pub mod list;
pub mod pause;
pub mod ps;
pub mod run;
pub mod spec;
pub mod start;
pub mod state;
pub mod update;

use std::process::ExitCode;

use anyhow::{Result, bail};

/// `checkpoint` and `restore`.
pub fn unsupported_checkpoint() -> Result<ExitCode> {
    bail!("unsupported: checkpoint and restore: sandboxes are not checkpointed yet")
}
