//! The hidden command that makes a template beside a container that has just been started.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use sandbox::template;

use crate::cli::HiddenArgs;
use crate::process::spawn;
use crate::report;

/// Runs the command.
pub fn run(args: &HiddenArgs) -> Result<ExitCode> {
    spawn::close_inherited()?;
    report::open_log(args.log.as_deref(), args.log_format, args.debug)
        .context("cannot open the log")?;
    match template::serve() {
        Ok(_made) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            // Nobody waits for it: the next start that misses it says so again.
            tracing::warn!(error = sandbox::chain(&error), "no template was made");
            Ok(ExitCode::FAILURE)
        }
    }
}
