//! The OCI runtime command and the command people type.
//!
//! `cli` says which words are taken, `oci` has one file per operation of runc's command line, `process` is about what
//! stands for a container's process on the host.

mod cli;
mod context;
mod oci;
mod process;
mod report;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let report = report::Report::open(&cli.global);
    let context = context::Context::new(&cli.global);
    let done = match cli.command {
        Command::Create(args) => oci::create::run(&context, args),
        Command::Start(args) => oci::start::run(&context, &args),
        Command::Run(args) => oci::run::run(&context, args),
        Command::State(args) => oci::state::run(&context, &args),
        Command::Kill(args) => oci::kill::run(&context, &args),
        Command::Delete(args) => oci::delete::run(&context, &args),
        Command::Exec(args) => oci::exec::run(&context, args),
        Command::List(args) => oci::list::run(&context, &args),
        Command::Ps(args) => oci::ps::run(&context, &args),
        Command::Pause(args) => oci::pause::pause(&context, &args),
        Command::Resume(args) => oci::pause::resume(&context, &args),
        Command::Update(args) => oci::update::run(&context, &args),
        Command::Events(args) => oci::events::run(&context, &args),
        Command::Spec(args) => oci::spec::run(&args),
        Command::Features => oci::features::run(),
        Command::Checkpoint(_) | Command::Restore(_) => oci::unsupported_checkpoint(),
        Command::Driver(args) => process::driver::run(&args),
        Command::Proxy(args) => process::proxy::run(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) => report.failure(&error),
    }
}
