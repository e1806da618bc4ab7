//! `events`: a container's use of resources.

use std::process::ExitCode;

use anyhow::{Result, bail};
use sandbox::control::{Reply, Request};
use sandbox::state::Status;

use crate::cli::EventsArgs;
use crate::context::Context;

/// Runs the command.
pub fn run(context: &Context, args: &EventsArgs) -> Result<ExitCode> {
    let mut client = context.find(&args.id)?;
    loop {
        match client.request("reading statistics", &Request::Stats) {
            Ok(Reply::Stats(data)) => {
                println!(
                    "{}",
                    serde_json::json!({ "type": "stats", "id": args.id, "data": data })
                );
            }
            Ok(other) => bail!("unexpected answer of the driver: {other:?}"),
            // The end of the container is the end of its events.
            Err(_) if !args.stats && matches!(client.status(), Ok(Status::Stopped)) => {
                return Ok(ExitCode::SUCCESS);
            }
            Err(error) => return Err(error.into()),
        }
        if args.stats {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(args.interval);
    }
}
