//! Developer commands: kernel, guest image, ready-to-run prefix, layer and licence checks, test images.
//!
//! `cargo xtask --help` lists them. Everything that takes long is cached outside the tree, in
//! `${COFFERDAM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cofferdam}`, under the hash of its inputs.

mod command;
mod compatibility;
mod digest;
mod docs;
mod engines;
mod fuzz;
mod images;
mod initramfs;
mod kernel;
mod kvm_tests;
mod mirror;
mod monitors;
mod places;
mod policy;
mod prefix;
mod progress;
mod standalone;
mod store;
mod suite;
mod test_programs;
mod testhost;
mod tests;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::places::Places;

/// Developer commands of Cofferdam.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build programs, guest kernel and guest image into target/cofferdam, a prefix ready to run from.
    Build(kernel::Options),
    /// Build the guest kernel, or take it from the cache.
    Kernel(kernel::Options),
    /// Build the guest's one program and pack it as the initial RAM disk.
    Initramfs,
    /// Build the container images that the tests use, or take them from the cache.
    Images(images::Options),
    /// Fetch engines that are newer than this Debian's, for the tests, or take them from the cache.
    Engines(engines::Options),
    /// Run all tests, several suites at a time.
    Test(tests::Options),
    /// Run a command, or a shell, in a disposable emulated machine with KVM and this machine's files.
    Testhost(testhost::Options),
    /// Run the tests that need KVM: on this machine's if it runs guests, else in a test host.
    KvmTests(kvm_tests::Options),
    /// Compare what a boot costs on our virtual machine monitor and on others.
    Monitors(monitors::Options),
    /// Feed one of the monitor's devices and inputs with bytes that a fuzzer makes up.
    Fuzz(fuzz::Options),
    /// Write the command line reference, manual pages and completions from the program's own definition.
    Docs(docs::Options),
    /// Check that dependencies between the workspace's packages point downwards only.
    Layers,
    /// Check licences, sources and banned or doubled dependencies against deny.toml.
    Licenses,
}

fn main() -> ExitCode {
    match dispatch(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &Arguments) -> Result<()> {
    let places = Places::find()?;
    match &arguments.command {
        Command::Build(options) => prefix::build(&places, options),
        Command::Kernel(options) => kernel::install(&places, options),
        Command::Initramfs => initramfs::install(&places),
        Command::Images(options) => images::install(&places, options),
        Command::Engines(options) => engines::install(&places, options),
        Command::Test(options) => tests::run(&places, options),
        Command::Testhost(options) => testhost::run(&places, options),
        Command::KvmTests(options) => kvm_tests::run(&places, options),
        Command::Monitors(options) => monitors::run(&places, options),
        Command::Fuzz(options) => fuzz::run(&places, options),
        Command::Docs(options) => docs::generate(&places, options),
        Command::Layers => policy::layers::check(&places),
        Command::Licenses => policy::dependencies::check(&places),
    }
}
