//! `stop`: asks containers to end, then makes them.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use sandbox::SandboxError;
use sandbox::client::Client;
use sandbox::control::{FailureKind, Request};
use sandbox::state::{Status, Store};

use super::select;
use crate::cli::StopArgs;
use crate::context::Context;
use crate::oci::kill;

/// How long a container may take to be gone after SIGKILL.
const DEATH_DEADLINE: Duration = Duration::from_secs(30);

/// Runs the command.
pub fn run(context: &Context, args: &StopArgs) -> Result<ExitCode> {
    let store = context.store()?;
    select::each(&args.ids, |text| {
        stop(&store, text, Duration::from_secs(args.time))?;
        println!("{text}");
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn stop(store: &Store, text: &str, patience: Duration) -> Result<()> {
    let found = select::one(store, text)?;
    let id = &found.record.id;
    let mut client = Client::find(store, id)?;
    match client.status()? {
        Status::Stopped => return Ok(()),
        Status::Creating => bail!("container {id} is being created"),
        // A frozen process acts on no signal.
        Status::Paused => {
            client.request("resuming the container", &Request::Resume)?;
        }
        Status::Created | Status::Running => {}
    }
    let Some(driver) = client.record().driver else {
        return Ok(());
    };
    let signal = kill::parse(found.run.stop_signal.as_deref().unwrap_or("TERM"))?;
    signal_init(&mut client, signal)?;
    if driver.wait(patience) {
        return Ok(());
    }
    signal_init(&mut client, 9)?;
    if driver.wait(DEATH_DEADLINE) {
        return Ok(());
    }
    bail!(
        "container {id} has not ended {} s after SIGKILL: `cofferdam rm -f {id}` ends its virtual machine",
        DEATH_DEADLINE.as_secs()
    )
}

/// One that has ended meanwhile needs no signal.
fn signal_init(client: &mut Client, signal: u8) -> Result<()> {
    let request = Request::Kill { signal, all: false };
    match client.request("signalling the container", &request) {
        Err(SandboxError::Process(failure)) if failure.kind == FailureKind::State => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}
