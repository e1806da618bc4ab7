//! Docker with Cofferdam as a runtime, chosen per container.
//!
//! Every case runs with `runc` first: that proves the case. What it observes has to be the same then, unless the list in
//! `testing/compatibility.toml` says that ours refuses it.

mod cases;
mod compatibility;
mod daemon;
mod docker;
mod faults;
mod runtime;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};

use cases::{CASES, Case, Verdict};
use compatibility::Outcome;
use daemon::{Daemon, Options};
use docker::Docker;
use runtime::Runtime;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // More emulated machines than processors make each other late.
    arguments.test_threads.get_or_insert(2);
    let wanted = |name: &str| {
        let matches = |filter: &String| {
            if arguments.exact {
                name == filter
            } else {
                name.contains(filter)
            }
        };
        arguments.filter.as_ref().is_none_or(matches) && !arguments.skip.iter().any(matches)
    };
    // One daemon for all cases: its start takes longer than most of them.
    let daemon = if arguments.list || !CASES.iter().any(|(name, _)| wanted(name)) {
        None
    } else {
        match Daemon::start(&Options::default()) {
            Ok(daemon) => Some(Arc::new(daemon)),
            Err(reason) => {
                eprintln!("SKIPPED docker: {reason}");
                return ExitCode::SUCCESS;
            }
        }
    };
    let mut trials = Vec::new();
    for (name, case) in CASES {
        let daemon = daemon.clone();
        trials.push(Trial::test(*name, move || {
            daemon.map_or(Ok(()), |daemon| run(&daemon, name, *case))
        }));
    }
    for (name, fault) in faults::FAULTS {
        trials.push(Trial::test(*name, || {
            fault();
            Ok(())
        }));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    let left = daemon.map_or(Ok(()), |daemon| daemon.leaves_nothing());
    match left {
        Ok(()) => conclusion.exit_code(),
        Err(left) => {
            eprintln!("left behind by some case: {left}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a case with each runtime and compares.
fn run(daemon: &Daemon, name: &str, case: Case) -> Result<(), Failed> {
    let wanted = compatibility::outcome(name);
    let reference = match observe(daemon, Runtime::Runc, name, case) {
        Verdict::Observed(reference) => reference,
        Verdict::Refused => return Err("runc refuses it".into()),
        Verdict::Skipped(reason) => {
            eprintln!("SKIPPED {name}: {reason}");
            return Ok(());
        }
    };
    for runtime in daemon.runtimes() {
        let seen = || match observe(daemon, runtime, name, case) {
            Verdict::Observed(seen) if seen == reference => Ok(Outcome::Works),
            Verdict::Observed(seen) => {
                Err(format!("runc and {runtime:?} differ:\n{reference}\n{seen}"))
            }
            Verdict::Refused => Ok(Outcome::Refused),
            Verdict::Skipped(reason) => Err(reason.to_owned()),
        };
        if wanted == Outcome::Fails {
            if let Ok(Ok(Outcome::Works)) = catch_unwind(AssertUnwindSafe(seen)) {
                return Err(format!("{runtime:?} does it, and the list says it fails").into());
            }
        } else {
            let came = seen()?;
            if came != wanted {
                return Err(format!("{runtime:?}: {came:?}, and the list says {wanted:?}").into());
            }
        }
    }
    Ok(())
}

fn observe(daemon: &Daemon, runtime: Runtime, name: &str, case: Case) -> Verdict {
    let docker = Docker::new(daemon, runtime, name);
    let verdict = case(&docker);
    docker.leaves_nothing();
    verdict
}
