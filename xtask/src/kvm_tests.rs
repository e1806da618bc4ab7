//! The tests that need KVM: on this machine's where it runs guests, else in a test host.
//!
//! A KVM device may open and still not run a kernel, so a guest is booted to find out.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command;
use crate::places::Places;
use crate::test_programs::{self, Program};
use crate::testhost;

/// The test targets, by their package.
const TARGETS: [(&str, &str); 5] = [
    ("backend-kvm", "conformance"),
    ("backend-kvm", "process"),
    ("backend-kvm", "faults"),
    ("backend-kvm", "huge_pages"),
    ("vmm-net", "vhost"),
];

/// Those that take long where virtualization is emulated: QEMU with KVM, and all that people and networks do on our own
/// VMM.
const LONG_TARGETS: [(&str, &str); 3] = [
    ("backend-qemu", "conformance"),
    ("harness", "people"),
    ("harness", "network"),
];

/// Tells the tests to use KVM.
const ACCELERATOR: (&str, &str) = ("COFFERDAM_TEST_ACCELERATOR", "kvm");

/// How long the tests of one target may take in a test host. The machine may have other things to do.
const LIMIT_SECONDS: u32 = 1800;

/// Where to run which of the tests.
#[derive(Args)]
pub struct Options {
    /// Run them in a test host, whatever this machine can.
    #[arg(long)]
    emulated: bool,
    /// Run QEMU's and the end-to-end tests with KVM, too: half an hour where virtualization is emulated.
    #[arg(long)]
    all: bool,
    /// What the test programs are told, such as the name of one test.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Where tests run, and why.
enum Where {
    Here(String),
    TestHost(String),
}

/// Builds the test programs and runs each, even if another failed.
pub fn run(places: &Places, options: &Options) -> Result<()> {
    let guest = places.guest_files();
    for name in ["vmlinux", "initramfs.cpio"] {
        let path = guest.join(name);
        if !path.is_file() {
            bail!("{} is missing: `make build` makes it", path.display());
        }
    }
    let host = testhost::program(places)?;
    let place = match options.emulated {
        true => Where::TestHost("as asked for".to_owned()),
        false => probe(&host, &guest)?,
    };
    if let Where::TestHost(_) = place {
        testhost::images(places, false)?;
    }
    match &place {
        Where::Here(why) => println!("kvm-tests run on this machine: {why}"),
        Where::TestHost(why) => println!("kvm-tests run in a test host: {why}"),
    }
    let mut failed = Vec::new();
    let long = LONG_TARGETS.into_iter().filter(|_| options.all);
    for (package, target) in TARGETS.into_iter().chain(long) {
        let program = build(places, package, target)?;
        let start = Instant::now();
        let mut tests = match place {
            Where::Here(_) => here(&program),
            Where::TestHost(_) => in_host(places, &host, &format!("{package}-{target}"), &program)?,
        };
        let status = tests
            .args(&options.arguments)
            .current_dir(&program.folder)
            .status()
            .with_context(|| format!("run {}", command::line(&tests)))?;
        println!(
            "kvm-tests: {package} {target}: {status} after {} s",
            start.elapsed().as_secs()
        );
        if !status.success() {
            failed.push(format!("{package} {target}"));
        }
    }
    if !failed.is_empty() {
        bail!("failed with KVM: {}", failed.join(", "));
    }
    Ok(())
}

/// Whether this machine's KVM runs our guest.
fn probe(host: &Path, guest: &Path) -> Result<Where> {
    let output = Command::new(host)
        .arg("kvm")
        .arg("--kernel")
        .arg(guest.join("vmlinux"))
        .arg("--initrd")
        .arg(guest.join("initramfs.cpio"))
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("run {}", host.display()))?;
    let said = String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned();
    match output.status.code() {
        Some(0) => Ok(Where::Here(said)),
        Some(1) => Ok(Where::TestHost(said)),
        _ => bail!("cannot find out whether KVM works here: {}", output.status),
    }
}

fn build(places: &Places, package: &str, target: &str) -> Result<Program> {
    let selection = ["--quiet", "--package", package, "--test", target];
    let built = test_programs::build(places, &selection)?.pop();
    built.with_context(|| format!("cargo built no test {target} of {package}"))
}

fn here(program: &Program) -> Command {
    let (name, value) = ACCELERATOR;
    let mut tests = Command::new(&program.executable);
    tests.env(name, value);
    tests
}

/// One at a time: the test host has one processor.
fn in_host(places: &Places, host: &Path, results: &str, program: &Program) -> Result<Command> {
    let (name, value) = ACCELERATOR;
    let results = testhost::folder(places).join("results").join(results);
    let mut tests = testhost::start(places, host, &results)?;
    tests
        .arg(format!("--timeout={LIMIT_SECONDS}"))
        .arg("--")
        .arg(&program.executable)
        .arg("--test-threads=1")
        .env(name, value);
    Ok(tests)
}
