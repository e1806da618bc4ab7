//! The tests that need KVM: on this machine's where it runs guests, else in a test host.
//!
//! A KVM device may open and still not run a kernel, so a guest is booted to find out.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command;
use crate::places::Places;
use crate::test_programs::{self, Program};
use crate::testhost;

/// A test target, and what is run of it.
struct Suite {
    package: &'static str,
    target: &'static str,
    /// What its program is told.
    arguments: &'static [&'static str],
    /// Memory of its test host.
    memory_mib: u32,
    /// How long it may take in one. The machine may have other things to do.
    limit_seconds: u32,
}

impl Suite {
    fn name(&self) -> String {
        format!("{}-{}", self.package, self.target)
    }

    const fn new(package: &'static str, target: &'static str) -> Self {
        Self {
            package,
            target,
            arguments: &[],
            memory_mib: 2000,
            limit_seconds: 1800,
        }
    }

    /// One that has container engines, with their images in memory.
    const fn of_engines(package: &'static str, target: &'static str) -> Self {
        Self {
            memory_mib: 6000,
            limit_seconds: 6 * 3600,
            ..Self::new(package, target)
        }
    }

    /// With these arguments.
    const fn with(self, arguments: &'static [&'static str]) -> Self {
        Self { arguments, ..self }
    }

    /// With arguments that leave little of it.
    const fn only(self, arguments: &'static [&'static str]) -> Self {
        Self {
            limit_seconds: 1800,
            ..self.with(arguments)
        }
    }
}

/// What is run always.
const SUITES: [Suite; 5] = [
    Suite::new("backend-kvm", "conformance"),
    Suite::new("backend-kvm", "process"),
    Suite::new("backend-kvm", "faults"),
    Suite::new("backend-kvm", "huge_pages"),
    Suite::new("vmm-net", "vhost"),
];

/// A quick case of each engine, which shows that it has machines on KVM: podman, containerd by `ctr`, Docker, CRI; and one
/// without, which shows the control groups of our VMM, of version 2 in a test host.
const QUICK: [Suite; 4] = [
    Suite::of_engines("harness", "engines").only(&[
        "--exact",
        "podman::lifecycle::kill_ends_it_with_137",
        "containerd::cases::kill_ends_a_task",
    ]),
    Suite::of_engines("harness", "docker").only(&["--exact", "debian::network::published_ports"]),
    // On runc it runs wherever the tests of the workspace do.
    Suite::of_engines("cri", "cri").only(&["--exact", "debian::cofferdam::pods::init_then_main"]),
    Suite::new("harness", "faults").with(&[
        "--exact",
        "machine_cgroup::a_machine_has_groups_of_its_own_which_go_whoever_was_killed",
        "machine_cgroup::a_host_whose_groups_cannot_be_made_is_an_error",
    ]),
];

/// Those that take long where virtualization is emulated: QEMU with KVM, and all that people and networks do on our own
/// VMM.
const LONG: [Suite; 3] = [
    Suite::new("backend-qemu", "conformance"),
    Suite::new("harness", "people"),
    Suite::new("harness", "network"),
];

/// All end-to-end tests: hours where virtualization is emulated.
const ENGINES: [Suite; 8] = [
    Suite::of_engines("harness", "engines"),
    Suite::of_engines("harness", "docker"),
    Suite::of_engines("cri", "cri"),
    Suite::of_engines("harness", "people"),
    Suite::of_engines("harness", "faults"),
    Suite::of_engines("harness", "network"),
    // Its example has cargo build a program, which a test host cannot.
    Suite::of_engines("harness", "library").with(&["--skip", "example::"]),
    Suite::of_engines("harness", "soak"),
];

/// Tells the tests to use KVM.
const ACCELERATOR: (&str, &str) = ("COFFERDAM_TEST_ACCELERATOR", "kvm");

/// How much longer than elsewhere everything may take in a test host.
const PATIENCE: (&str, &str) = ("COFFERDAM_TEST_PATIENCE", "4");

/// Where the output of a suite is found, in the folder of its results.
const OUTPUT: &str = "output";

/// Where to run which of the tests.
#[derive(Args)]
pub struct Options {
    /// Run them in a test host, whatever this machine can.
    #[arg(long)]
    emulated: bool,
    /// Run QEMU's and the end-to-end tests with KVM, too: half an hour where virtualization is emulated.
    #[arg(long)]
    all: bool,
    /// Run all end-to-end tests with KVM, or these suites of them, and nothing else: hours where virtualization is
    /// emulated.
    #[arg(long, value_name = "SUITE", num_args = 0.., value_delimiter = ',', conflicts_with = "all")]
    engines: Option<Vec<String>>,
    /// What the test programs are told, such as the name of one test.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Where tests run, and why.
enum Where {
    Here(String),
    TestHost(String),
}

/// Builds the test programs and runs each, even if another failed. What they say is kept beside their results.
pub fn run(places: &Places, options: &Options) -> Result<()> {
    let suites = suites(options)?;
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
    for suite in &suites {
        let name = suite.name();
        let program = build(places, suite.package, suite.target)?;
        let results = testhost::folder(places).join("results").join(&name);
        fs::create_dir_all(&results).with_context(|| format!("create {}", results.display()))?;
        let start = Instant::now();
        let mut tests = match place {
            Where::Here(_) => here(&program),
            Where::TestHost(_) => in_host(suite, places, &host, &results, &program)?,
        };
        tests
            .args(suite.arguments)
            .args(&options.arguments)
            .current_dir(&program.folder);
        let status = shown_and_kept(&mut tests, &results.join(OUTPUT))
            .with_context(|| format!("run {}", command::line(&tests)))?;
        println!(
            "kvm-tests: {} {}: {status} after {} s",
            suite.package,
            suite.target,
            start.elapsed().as_secs()
        );
        if !status.success() {
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("failed with KVM: {}", failed.join(", "));
    }
    Ok(())
}

/// The suites that are asked for.
fn suites(options: &Options) -> Result<Vec<Suite>> {
    if let Some(names) = &options.engines {
        let known = ENGINES.map(|suite| suite.target);
        if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
            bail!("there is no suite {name}; there are {}", known.join(", "));
        }
        let wanted =
            |suite: &Suite| names.is_empty() || names.iter().any(|name| name == suite.target);
        return Ok(ENGINES.into_iter().filter(wanted).collect());
    }
    let mut suites = Vec::from(SUITES);
    // Who looks for some test does not look for these.
    if options.arguments.is_empty() {
        suites.extend(QUICK);
    }
    if options.all {
        suites.extend(LONG);
    }
    Ok(suites)
}

/// Runs a command whose output goes to ours and to a file.
fn shown_and_kept(command: &mut Command, file: &Path) -> io::Result<ExitStatus> {
    let mut file = File::create(file)?;
    let (mut output, end) = io::pipe()?;
    let mut child = command.stdout(end.try_clone()?).stderr(end).spawn()?;
    // It holds both ends of the pipe: nothing would end what follows.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut shown = io::stdout();
    let mut bytes = [0; 8192];
    loop {
        match output.read(&mut bytes)? {
            0 => return child.wait(),
            count => {
                file.write_all(&bytes[..count])?;
                shown.write_all(&bytes[..count])?;
                shown.flush()?;
            }
        }
    }
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
fn in_host(
    suite: &Suite,
    places: &Places,
    host: &Path,
    results: &Path,
    program: &Program,
) -> Result<Command> {
    let mut tests = testhost::start(places, host, results)?;
    tests
        .arg(format!("--memory={}", suite.memory_mib))
        .arg(format!("--timeout={}", suite.limit_seconds))
        .arg("--")
        .arg(&program.executable)
        .arg("--test-threads=1")
        .envs([ACCELERATOR, PATIENCE]);
    Ok(tests)
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn asked(words: &[&str]) -> Result<Vec<String>> {
        let command = Options::augment_args(clap::Command::new("kvm-tests").no_binary_name(true));
        let options = Options::from_arg_matches(&command.try_get_matches_from(words)?)?;
        let suites = suites(&options)?.into_iter();
        Ok(suites.map(|suite| suite.name()).collect())
    }

    #[test]
    fn every_engine_is_tried_unless_one_test_is_asked_for() {
        let all = asked(&[]).unwrap();
        for name in [
            "backend-kvm-faults",
            "harness-engines",
            "harness-docker",
            "cri-cri",
        ] {
            assert!(all.iter().any(|suite| suite == name), "{name}: {all:?}");
        }
        let one = asked(&["--", "hotplug"]).unwrap();
        assert!(
            one.iter().all(|suite| !suite.starts_with("harness")),
            "{one:?}"
        );
    }

    #[test]
    fn suites_of_engines_are_asked_for_by_name() {
        assert_eq!(asked(&["--engines"]).unwrap().len(), ENGINES.len());
        let two = asked(&["--engines", "cri,docker", "--", "limits::"]).unwrap();
        assert_eq!(two, ["harness-docker", "cri-cri"]);
        let wrong = asked(&["--engines", "podman"]).unwrap_err().to_string();
        assert!(
            wrong.contains("no suite podman; there are engines,"),
            "{wrong}"
        );
    }
}
