//! `pause` and `resume`.

use std::process::ExitCode;

use anyhow::Result;
use sandbox::control::Request;

use crate::cli::IdArgs;
use crate::context::Context;

/// Freezes a container.
pub fn pause(context: &Context, args: &IdArgs) -> Result<ExitCode> {
    context
        .find(&args.id)?
        .request("pausing the container", &Request::Pause)?;
    Ok(ExitCode::SUCCESS)
}

/// Thaws a container.
pub fn resume(context: &Context, args: &IdArgs) -> Result<ExitCode> {
    context
        .find(&args.id)?
        .request("resuming the container", &Request::Resume)?;
    Ok(ExitCode::SUCCESS)
}
