//! `debug`: looks into how sandboxes work, one command per file.

mod boot_time;

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{DebugArgs, DebugCommand};

/// Runs the command.
pub fn run(args: &DebugArgs) -> Result<ExitCode> {
    match &args.command {
        DebugCommand::BootTime(args) => boot_time::run(args),
    }
}
