//! `run`: creates and starts a container of a bundle, and waits for its end unless detached.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use sandbox::client::{Client, NewContainer};
use sandbox::control::Channel;
use sandbox::state::ExitStatus;

use crate::cli::RunArgs;
use crate::context::Context;
use crate::oci::attach::{Attached, write_pid};
use crate::oci::create;
use crate::oci::start::start;
use crate::people::storage;
use crate::process::proxy;

/// Runs the command.
pub fn run(context: &Context, args: &RunArgs) -> Result<ExitCode> {
    let [id] = &args.words[..] else {
        bail!("a bundle's container has one name, and its command stands in config.json");
    };
    let new = create::of_bundle(context, id, &args.bundle)?;
    let (store, id) = (new.store.clone(), new.id.clone());
    if args.detach {
        create::for_engine(context, new, &args.bundle)?;
        let started = start(&mut Client::find(&store, &id)?);
        if started.is_err() {
            storage::delete(&store, &id, true)?;
        }
        started?;
        return Ok(ExitCode::SUCCESS);
    }
    let console_socket = args.bundle.console_socket.as_deref();
    let (wants_terminal, size) = create::terminal(&new);
    let exit = in_foreground(context, new, args.bundle.pid_file.as_deref(), || {
        Attached::new(wants_terminal, console_socket, false, size)
    })?;
    if !args.keep {
        storage::delete(&store, &id, true)?;
    }
    Ok(ExitCode::from(exit.code))
}

/// Makes and starts it, and stands for its process until that has ended.
pub fn in_foreground(
    context: &Context,
    new: NewContainer,
    pid_file: Option<&Path>,
    attach: impl FnOnce() -> Result<Attached>,
) -> Result<ExitStatus> {
    let (store, id) = (new.store.clone(), new.id.clone());
    create::registered(new, |new| {
        let mut attached = attach()?;
        let raw = attached.raw.take();
        let console = attached.console.take();
        let (ours, drivers) = proxy::pair()?;
        let pid = std::process::id().cast_signed();
        let undecided = create::launch(context, new, attached, pid, drivers)?;
        write_pid(pid_file, pid)?;
        // From here on a signal is the container's.
        let signals = proxy::Signals::catch()?;
        let mut driver = undecided.keep()?;
        start(&mut Client::find(&store, &id)?)?;
        let stdin = io::stdin();
        let terminal = match (&raw, &console) {
            (Some(_), _) => Some(stdin.as_fd()),
            (None, Some(console)) => Some(console.as_fd()),
            (None, None) => None,
        };
        let exit = proxy::stand_for(Channel::new(ours), &signals, terminal);
        drop(raw);
        // The sandbox's driver stays for the other containers.
        if let Some(driver) = &mut driver {
            driver.wait().context("cannot wait for the driver")?;
        }
        Ok(exit)
    })
}
