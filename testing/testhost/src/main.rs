//! Runs a command in a test host. `cargo xtask testhost` prepares what it boots from and starts it.

mod kvm;
mod report;
mod run;
mod terminal;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Error;
use clap::{Parser, Subcommand};
use testhost::Served;

/// What this program exits with when the command ran too long, as timeout(1) does.
const OVERDUE: u8 = 124;

/// And when it is the test host that failed.
const FAILED: u8 = 125;

#[derive(Parser)]
#[command(
    name = "testhost",
    about = "A disposable machine with KVM for tests; `cargo xtask testhost` starts it"
)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Run a command, or without one a shell at this terminal. Exits as the command does, with 124 when it ran too long, with
    /// 125 when the test host failed.
    Run(run::Options),
    /// Say whether this machine's own KVM runs guests: exits with 0 if so, with 1 and the reason if not.
    Kvm(kvm::Options),
    /// Serve this machine's files, or a folder, to the QEMU that is connected to standard input.
    #[command(hide = true)]
    Serve {
        /// The folder.
        folder: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    report::install();
    let result = match Arguments::parse().action {
        Action::Run(options) => run::run(options),
        Action::Kvm(options) => kvm::probe(&options),
        Action::Serve { folder } => {
            testhost::serve(folder.map_or(Served::Root, Served::Folder)).map(|()| 0)
        }
    };
    let code = result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        code_of(&error)
    });
    ExitCode::from(code)
}

fn code_of(error: &Error) -> u8 {
    match error.downcast_ref() {
        Some(testhost::Error::Overdue { .. }) => OVERDUE,
        _ => FAILED,
    }
}
