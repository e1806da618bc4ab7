//! `state`: prints a container's state.

use std::process::ExitCode;

use anyhow::Result;
use sandbox::driver::oci_state;

use crate::cli::IdArgs;
use crate::context::Context;

/// Runs the command.
pub fn run(context: &Context, args: &IdArgs) -> Result<ExitCode> {
    let mut client = context.find(&args.id)?;
    let status = client.status()?;
    println!(
        "{}",
        serde_json::to_string_pretty(&oci_state(client.record(), status))?
    );
    Ok(ExitCode::SUCCESS)
}
