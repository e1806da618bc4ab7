//! The OCI runtime command and the command people type.
//!
//! `cli` says which words are taken, `oci` has one file per operation of runc's command line, `process` is about what
//! stands for a container's process on the host, `people` has the commands that need no engine, `debug` looks into
//! how machines work.

mod cli;
mod context;
mod debug;
mod docs;
mod oci;
mod people;
mod process;
mod report;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::cli::{Cli, Command, RunArgs};
use crate::context::Context;
use crate::people::mode::{Mode, decide};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let report = match report::Report::open(&cli.global) {
        Ok(report) => report,
        Err(code) => return code,
    };
    sandbox::timeline::mark("a command begins", None);
    let context = Context::new(&cli.global);
    let done = match cli.command {
        Command::Create(args) => oci::create::run(&context, args),
        Command::Start(args) => oci::start::run(&context, &args),
        Command::Run(args) => run(&context, &args),
        Command::State(args) => oci::state::run(&context, &args),
        Command::Kill(args) => oci::kill::run(&context, &args),
        Command::Delete(args) => oci::delete::run(&context, &args),
        Command::Exec(args) => oci::exec::run(&context, args),
        Command::List(args) => oci::list::run(&context, &args),
        Command::Ps(args) => match &args.id {
            Some(id) => oci::ps::run(&context, id, args.format),
            None => people::ps::run(&context, &args),
        },
        Command::Logs(args) => people::logs::run(&context, &args),
        Command::Stop(args) => people::stop::run(&context, &args),
        Command::Rm(args) => people::rm::run(&context, &args),
        Command::Images(args) => people::images::run(&args),
        Command::Rmi(args) => people::rmi::run(&args),
        Command::Pull(args) => people::pull::run(&args),
        Command::Load(args) => people::load::run(&args),
        Command::Template(args) => people::template::run(&args),
        Command::Check(args) => people::check::run(&args),
        Command::Debug(args) => debug::run(&context, &args),
        Command::GenerateDocs(args) => docs::run(&args),
        Command::Pause(args) => oci::pause::pause(&context, &args),
        Command::Resume(args) => oci::pause::resume(&context, &args),
        Command::Update(args) => oci::update::run(&context, &args),
        Command::Events(args) => oci::events::run(&context, &args),
        Command::Spec(args) => oci::spec::run(&args),
        Command::Features => oci::features::run(),
        Command::Checkpoint(_) | Command::Restore(_) => oci::unsupported_checkpoint(),
        Command::Network(args) => people::network::hook(&args),
        Command::Driver(args) => process::driver::run(&args),
        Command::Proxy(args) => process::proxy::run(&args),
        Command::TemplateMaker(args) => process::maker::run(&args),
        Command::Victim => process::victim::run(),
    };
    sandbox::timeline::mark("a command ends", None);
    match done {
        Ok(code) => code,
        Err(error) => report.failure(&error),
    }
}

/// `run` takes an image or a bundle.
fn run(context: &Context, args: &RunArgs) -> Result<ExitCode> {
    match decide(args, Path::new("config.json").exists())? {
        Mode::Bundle => oci::run::run(context, args),
        Mode::Image => people::run::run(context, args),
    }
}
