//! `delete`: removes a container.

use std::process::ExitCode;

use anyhow::{Result, bail};
use sandbox::SandboxError;
use sandbox::state::StateError;

use crate::cli::DeleteArgs;
use crate::context::{Context, container_id};
use crate::people::storage;

/// Runs the command.
pub fn run(context: &Context, args: &DeleteArgs) -> Result<ExitCode> {
    let id = container_id(&args.id)?;
    match storage::delete(&context.store()?, &id, args.force) {
        Ok(()) => {}
        // As runc: what was to be gone is gone.
        Err(SandboxError::State(StateError::Missing(_))) if args.force => {}
        Err(SandboxError::Wrong(wrong)) => {
            bail!(
                "cannot delete container {id} that is not stopped: {}",
                wrong.status.as_str()
            )
        }
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}
