//! The confined file-sharing server of one sandbox: `cofferdam-fs`.
//!
//! Started by `sandbox_share::ShareServer` only: standard input is its control socket. Its life:
//!
//! 1. [`control`] reads what to serve and the vhost-user socket;
//! 2. [`layout`] puts the entries together in a mount namespace of its own and makes them the only files there are;
//! 3. [`confine`] gives up every capability and system call that serving files does not need;
//! 4. [`serve`] answers the guest until the VMM hangs up.
//!
//! The other kinds of launch change what such a server shows ([`change`]) and exit.

mod change;
mod confine;
mod control;
mod entry;
mod held;
mod layout;
mod report;
mod serve;

use std::os::unix::net::UnixListener;
use std::process::ExitCode;

use sandbox_share::{Answer, Entry, EntryError, Launch};

use crate::control::Control;

fn main() -> ExitCode {
    report::install();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let (control, launch, descriptor) = control::receive()?;
    let changed = match launch {
        Launch::Serve { entries, threads } => {
            return serve_tree(&control, &entries, threads, descriptor.into());
        }
        Launch::Add { entries } => change::add(&entries, descriptor),
        Launch::Remove { paths } => change::remove(&paths, descriptor),
    };
    control.answer(&changed.unwrap_or_else(Answer::Failed))
}

fn serve_tree(
    control: &Control,
    entries: &[Entry],
    threads: usize,
    listener: UnixListener,
) -> anyhow::Result<()> {
    let started = (|| {
        let tree = layout::build(entries)?;
        let files = confine::raise_file_limit()?;
        confine::drop_privileges(files)?;
        serve::start(tree, listener, threads, files)
    })();
    let server = match started {
        Ok(server) => server,
        Err(error) => {
            control.answer(&Answer::Failed(error.clone()))?;
            return Err(error.into());
        }
    };
    control.answer(&Answer::Ready)?;
    server.wait()
}

/// An error of a step that concerns no single entry.
fn step(step: &str) -> impl FnOnce(rustix::io::Errno) -> EntryError {
    move |errno| EntryError::Confine {
        step: step.to_owned(),
        reason: reason(errno.into()),
    }
}

/// The operating system's answer without Rust's "(os error N)".
fn reason(error: std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}
