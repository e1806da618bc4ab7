//! `rm`: removes containers.

use std::process::ExitCode;

use anyhow::{Result, bail};
use sandbox::SandboxError;
use sandbox::config::Config;
use sandbox::state::StateError;

use super::{select, storage};
use crate::cli::RmArgs;
use crate::context::Context;

/// Runs the command.
pub fn run(context: &Context, args: &RmArgs) -> Result<ExitCode> {
    let store = context.store()?;
    let done = select::each(&args.ids, |text| {
        let id = match select::one(&store, text) {
            Ok(found) => found.record.id,
            // What was to be gone is gone.
            Err(error) if args.force => {
                eprintln!("cofferdam: {error:#}");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        match storage::delete(&store, &id, args.force) {
            Ok(()) | Err(SandboxError::State(StateError::Missing(_))) => {}
            Err(SandboxError::Wrong(wrong)) => bail!(
                "container {id} is {}: stop it first, or remove it by force (`cofferdam rm -f {id}`)",
                wrong.status.as_str()
            ),
            Err(error) => return Err(error.into()),
        }
        println!("{text}");
        Ok(())
    });
    storage::sweep(&Config::load().map_err(SandboxError::from)?, &store);
    done?;
    Ok(ExitCode::SUCCESS)
}
