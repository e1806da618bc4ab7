//! `debug`: looks into how sandboxes work, one command per file.

mod boot_time;
mod counters;

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{DebugArgs, DebugCommand};
use crate::context::Context;

/// Runs the command.
pub fn run(context: &Context, args: &DebugArgs) -> Result<ExitCode> {
    match &args.command {
        DebugCommand::BootTime(args) => boot_time::run(args),
        DebugCommand::Counters(args) => counters::run(context, args),
    }
}
