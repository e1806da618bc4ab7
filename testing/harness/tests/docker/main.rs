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
use runtime::{Release, Runtime};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // More emulated machines than processors make each other late.
    arguments.test_threads.get_or_insert(2);
    // One after another: daemons hold what their machines need.
    let failed = Release::all()
        .into_iter()
        .map(|release| run_all(&arguments, release))
        .filter(|&passed| !passed);
    if failed.count() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs all that is asked for with one engine; answers whether it was as it should be, and left nothing.
fn run_all(arguments: &Arguments, release: Release) -> bool {
    let prefixed = |name: &str| format!("{}::{name}", release.name);
    let is_left_out = |name: &str| {
        release.is_second && !compatibility::differs(name) && !faults::DIFFERENT.contains(&name)
    };
    let all = arguments.include_ignored || arguments.ignored;
    let wanted = |(name, _): &(&str, Case)| {
        is_wanted(arguments, &prefixed(name)) && (all || !is_left_out(name))
    };
    // One daemon for all cases: its start takes longer than most of them. Started by this thread, it ends with it.
    let daemon = if arguments.list || !CASES.iter().any(wanted) {
        None
    } else {
        match Daemon::start(&release, &Options::default()) {
            Ok(daemon) => Some(Arc::new(daemon)),
            Err(reason) => {
                eprintln!("SKIPPED docker ({}): {reason}", release.name);
                return true;
            }
        }
    };
    let mut trials = Vec::new();
    for (name, case) in CASES {
        let daemon = daemon.clone();
        let trial = Trial::test(prefixed(name), move || {
            daemon.map_or(Ok(()), |daemon| run(&daemon, name, *case))
        });
        trials.push(trial.with_ignored_flag(is_left_out(name)));
    }
    for (name, fault) in faults::FAULTS {
        let of_fault = release.clone();
        let trial = Trial::test(prefixed(name), move || {
            fault(&of_fault);
            Ok(())
        });
        trials.push(trial.with_ignored_flag(is_left_out(name)));
    }
    let conclusion = libtest_mimic::run(arguments, trials);
    let left = daemon.map_or(Ok(()), |daemon| daemon.leaves_nothing());
    if let Err(left) = &left {
        eprintln!("left behind by some case: {left}");
    }
    !conclusion.has_failed() && left.is_ok()
}

/// Whether the options ask for a test.
fn is_wanted(arguments: &Arguments, name: &str) -> bool {
    let matches = |filter: &String| {
        if arguments.exact {
            name == filter
        } else {
            name.contains(filter)
        }
    };
    arguments.filter.as_ref().is_none_or(matches) && !arguments.skip.iter().any(matches)
}

/// Runs a case with runc and with each of ours, and compares.
fn run(daemon: &Daemon, name: &str, case: Case) -> Result<(), Failed> {
    let reference = match observe(daemon, Runtime::Runc, name, case) {
        Verdict::Observed(reference) => reference,
        Verdict::Refused => return Err("runc refuses it".into()),
        Verdict::Skipped(reason) => {
            eprintln!("SKIPPED {name}: {reason}");
            return Ok(());
        }
    };
    let ours = daemon.release().ours;
    ours.iter()
        .try_for_each(|&runtime| compare(daemon, runtime, name, case, &reference))
}

/// Whether what comes of a case with one of ours is what the list says; `reference` is what came with runc.
fn compare(
    daemon: &Daemon,
    runtime: Runtime,
    name: &str,
    case: Case,
    reference: &str,
) -> Result<(), Failed> {
    let wanted = compatibility::outcome(name, runtime);
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
        return Ok(());
    }
    let came = seen()?;
    if came == wanted {
        Ok(())
    } else {
        Err(format!("{runtime:?}: {came:?}, and the list says {wanted:?}").into())
    }
}

fn observe(daemon: &Daemon, runtime: Runtime, name: &str, case: Case) -> Verdict {
    let docker = Docker::new(daemon, runtime, name);
    let verdict = case(&docker);
    docker.leaves_nothing();
    verdict
}
