//! `start`: runs the process of a created container.

use std::process::ExitCode;

use anyhow::{Result, bail};
use sandbox::control::{FailureKind, Request};
use sandbox::state::Status;
use sandbox::{SandboxError, client::Client};

use crate::cli::IdArgs;
use crate::context::Context;

/// Runs the command.
pub fn run(context: &Context, args: &IdArgs) -> Result<ExitCode> {
    start(&mut context.find(&args.id)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Starts a container; a refusal is in runc's words.
pub fn start(client: &mut Client) -> Result<()> {
    match client.request("starting the container", &Request::Start) {
        Err(SandboxError::Process(failure)) if failure.kind == FailureKind::State => match client
            .status()?
        {
            Status::Stopped => bail!("cannot start a container that has stopped"),
            Status::Running | Status::Paused => bail!("cannot start an already running container"),
            _ => bail!(failure.message),
        },
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}
