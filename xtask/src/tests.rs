//! All tests: the workspace's test programs, those that need KVM, and the conformance cases.
//!
//! `cargo test` runs one program after the other, and each has times in which it only waits for a machine or an engine.
//! Here several run at a time, the long ones first. What one says is shown when it has ended, and lies in
//! `target/test-logs` before.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::places::Places;
use crate::test_programs;

/// Those that take longest: the others are many and short, and fill what is left.
const LONG: [&str; 8] = [
    "testing/harness docker",
    "testing/cri cri",
    "kvm-tests",
    "testing/harness faults",
    "testing/harness engines",
    "conformance cofferdam",
    "testing/harness soak",
    "testing/harness network",
];

/// A suite that takes longer hangs. Machines may have other things to do.
const LIMIT: Duration = Duration::from_secs(45 * 60);

/// How often it is looked whether a suite has ended.
const PAUSE: Duration = Duration::from_millis(100);

/// Which tests to run, and how.
#[derive(Args)]
pub struct Options {
    /// Only suites whose names contain one of these words; `--list` shows the names.
    names: Vec<String>,
    /// Name the suites and run none.
    #[arg(long)]
    list: bool,
    /// How many run at a time. Each of those with machines keeps two at most.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    lanes: u8,
}

/// One program that tests something.
struct Suite {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    folder: PathBuf,
}

/// How a suite went.
struct Done {
    name: String,
    took: Duration,
    failure: Option<String>,
}

/// Builds all, runs each that is asked for even if another failed.
pub fn run(places: &Places, options: &Options) -> Result<()> {
    let mut suites = suites(places)?;
    let is_wanted = |suite: &Suite| {
        let names = &options.names;
        names.is_empty() || names.iter().any(|name| suite.name.contains(name))
    };
    suites.retain(is_wanted);
    let rank = |suite: &Suite| LONG.iter().position(|name| *name == suite.name);
    suites.sort_by_key(|suite| rank(suite).unwrap_or(LONG.len()));
    if options.list {
        for suite in suites {
            println!("{}", suite.name);
        }
        return Ok(());
    }
    if suites.is_empty() {
        bail!("no suite has such a name: --list shows them");
    }
    let logs = places.target.join("test-logs");
    fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
    let waiting = Mutex::new(VecDeque::from(suites));
    let done = Mutex::new(Vec::new());
    let next = || {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.pop_front()
    };
    let lane = || {
        while let Some(suite) = next() {
            let started = Instant::now();
            let failure = one(&suite, &logs).err().map(|error| format!("{error:#}"));
            let ended = Done {
                name: suite.name,
                took: started.elapsed(),
                failure,
            };
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            show(&ended, &logs);
            done.push(ended);
        }
    };
    thread::scope(|scope| {
        for _ in 0..options.lanes {
            scope.spawn(lane);
        }
    });
    sum_up(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// All that there are: cargo's, and those that are commands.
fn suites(places: &Places) -> Result<Vec<Suite>> {
    let mut suites = Vec::new();
    for program in test_programs::build(places, &["--workspace"])? {
        let package = program.folder.strip_prefix(&places.root);
        let package = package.unwrap_or(&program.folder).display();
        let name = match program.is_integration {
            true => format!("{package} {}", program.target),
            false => format!("{package} {} (unit)", program.target),
        };
        suites.push(Suite {
            name,
            program: program.executable,
            arguments: Vec::new(),
            folder: program.folder,
        });
    }
    let mut add = |name: &str, program: &Path, arguments: &[&str]| {
        suites.push(Suite {
            name: name.to_owned(),
            program: program.to_owned(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            folder: places.root.clone(),
        });
    };
    // The running program, also when cargo has just replaced its file.
    add("kvm-tests", Path::new("/proc/self/exe"), &["kvm-tests"]);
    add(
        "documentation",
        Path::new("cargo"),
        &["test", "--locked", "--workspace", "--doc"],
    );
    let make = Path::new("make");
    for runtime in ["runc", "crun", "cofferdam"] {
        let goal = format!("conformance-{runtime}");
        add(&format!("conformance {runtime}"), make, &[&goal]);
    }
    Ok(suites)
}

/// Runs one to its end, with all that it says in its log.
fn one(suite: &Suite, logs: &Path) -> Result<()> {
    let log = log(logs, &suite.name);
    let out = File::create(&log).with_context(|| format!("create {}", log.display()))?;
    let errors = out.try_clone().context("share a log")?;
    println!("{}: begins", suite.name);
    let mut child = Command::new(&suite.program)
        .args(&suite.arguments)
        .current_dir(&suite.folder)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(errors)
        .spawn()
        .with_context(|| format!("start {}", suite.program.display()))?;
    let status = wait(&mut child)?;
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("{status}"),
        None => bail!("not done within {} min, and killed", LIMIT.as_secs() / 60),
    }
}

/// Nothing when it had to be killed.
fn wait(child: &mut Child) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().context("wait for a suite")? {
            return Ok(Some(status));
        }
        thread::sleep(PAUSE);
    }
    child.kill().context("kill a suite")?;
    child.wait().context("wait for a suite")?;
    Ok(None)
}

fn log(logs: &Path, name: &str) -> PathBuf {
    logs.join(format!("{}.log", name.replace(['/', ' '], "-")))
}

fn show(done: &Done, logs: &Path) {
    let said = fs::read(log(logs, &done.name)).unwrap_or_default();
    println!(
        "\n=== {}: {} after {} s\n{}",
        done.name,
        done.failure.as_deref().unwrap_or("passed"),
        done.took.as_secs(),
        String::from_utf8_lossy(&said)
    );
}

fn sum_up(mut all: Vec<Done>) -> Result<()> {
    all.sort_by_key(|done| std::cmp::Reverse(done.took));
    println!("=== suites by time");
    for done in &all {
        let mark = match done.failure {
            Some(_) => "FAILED",
            None => "ok",
        };
        println!("{:>6} s  {:6}  {}", done.took.as_secs(), mark, done.name);
    }
    let failed: Vec<_> = all
        .iter()
        .filter_map(|done| Some(format!("{} ({})", done.name, done.failure.as_ref()?)))
        .collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}
