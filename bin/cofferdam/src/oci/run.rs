//! `run`: creates and starts a container of a bundle, and waits for its end unless detached.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use sandbox::client::{self, Client, NewContainer};
use sandbox::control::Channel;
use sandbox::state::ExitStatus;

use crate::cli::RunArgs;
use crate::context::Context;
use crate::oci::attach::{Attached, write_pid};
use crate::oci::create;
use crate::oci::start::start;
use crate::process::proxy;

/// Runs the command.
pub fn run(context: &Context, args: RunArgs) -> Result<ExitCode> {
    let new = create::of_bundle(context, &args.id, &args.bundle)?;
    let (store, id) = (new.store.clone(), new.id.clone());
    let console_socket = args.bundle.console_socket.as_deref();
    if args.detach {
        create::in_background(
            context,
            new,
            console_socket,
            args.bundle.pid_file.as_deref(),
        )?;
        let started = start(&mut Client::find(&store, &id)?);
        if started.is_err() {
            client::delete(&store, &id, true)?;
        }
        started?;
        return Ok(ExitCode::SUCCESS);
    }
    let exit = in_foreground(
        context,
        new,
        console_socket,
        args.bundle.pid_file.as_deref(),
    )?;
    if !args.keep {
        client::delete(&store, &id, true)?;
    }
    Ok(ExitCode::from(exit.code))
}

/// Makes and starts it, and stands for its process until that has ended.
pub fn in_foreground(
    context: &Context,
    new: NewContainer,
    console_socket: Option<&Path>,
    pid_file: Option<&Path>,
) -> Result<ExitStatus> {
    let (wants_terminal, size) = create::terminal(&new);
    let (store, id) = (new.store.clone(), new.id.clone());
    create::registered(new, |new| {
        let mut attached = Attached::new(wants_terminal, console_socket, false, size)?;
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
        driver.wait().context("cannot wait for the driver")?;
        Ok(exit)
    })
}
