//! The confined file-sharing server of one sandbox: `cofferdam-fs`.
//!
//! Started by `sandbox_share::ShareServer` only: standard input is its control socket. Its life:
//!
//! 1. [`control`] reads what to serve and the vhost-user socket;
//! 2. [`layout`] puts the entries together in a mount namespace of its own and makes them the only files there are;
//! 3. [`confine`] gives up every capability and system call that serving files does not need;
//! 4. [`serve`] answers the guest until the VMM hangs up.

mod confine;
mod control;
mod layout;
mod report;
mod serve;

use std::process::ExitCode;

use sandbox_share::{Answer, EntryError, Launch};

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
    let (control, launch, listener) = control::receive()?;
    let Launch::Serve { entries, threads } = launch;
    let started = (|| {
        let tree = layout::build(&entries)?;
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
