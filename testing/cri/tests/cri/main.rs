//! Pods as kubelet makes them, with containerd's CRI plugin: one of its versions after the other, on `runc` first, which
//! proves the case, and on ours.
//!
//! What each case shows and what comes of it with ours stands in `testing/compatibility.toml`.

mod cases;
mod compatibility;
mod engine;
mod images;
mod lab;
mod namespaces;
mod pod;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use harness::Prefix;
use libtest_mimic::{Arguments, Failed, Trial};

use cases::{CASES, Case};
use compatibility::Outcome;
use engine::{Engine, Release};
use lab::{Handler, Lab};

/// A release and its daemon, once some case needed it.
struct Shared {
    release: Release,
    number: u8,
    engine: OnceLock<Result<Engine, String>>,
}

impl Shared {
    fn engine(&self) -> Result<&Engine, String> {
        let engine = self
            .engine
            .get_or_init(|| Engine::start(&self.release, self.number));
        engine.as_ref().map_err(Clone::clone)
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // More emulated machines than processors make each other late.
    arguments.test_threads.get_or_insert(2);
    if !arguments.list && !namespaces::is_inside() {
        return match missing() {
            None => namespaces::enter(),
            Some(reason) => {
                eprintln!("SKIPPED cri: {reason}");
                ExitCode::SUCCESS
            }
        };
    }
    let engines: Vec<_> = releases()
        .into_iter()
        .zip(1..)
        .map(|(release, number)| {
            Arc::new(Shared {
                release,
                number,
                engine: OnceLock::new(),
            })
        })
        .collect();
    let trials = trials(&engines);
    if arguments.list {
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    // Outlives the daemons.
    let folder = tempfile::tempdir().expect("a folder");
    namespaces::prepare(folder.path());
    let conclusion = libtest_mimic::run(&arguments, trials);
    let mut left = Vec::new();
    for shared in engines {
        let shared = Arc::into_inner(shared).expect("no case runs any more");
        if let Some(Ok(engine)) = shared.engine.into_inner() {
            left.extend(engine.end());
        }
    }
    namespaces::end();
    if left.is_empty() {
        return conclusion.exit_code();
    }
    eprintln!("left behind by some case: {left:#?}");
    ExitCode::FAILURE
}

/// Why nothing can run here.
fn missing() -> Option<String> {
    if let Err(reason) = Prefix::find() {
        return Some(reason);
    }
    let programs = [
        "containerd",
        "runc",
        "docker-registry",
        "unshare",
        "ip",
        "iptables",
    ];
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &&str| {
        std::env::split_paths(&folders)
            .chain(["/usr/sbin", "/sbin"].map(Into::into))
            .any(|folder| folder.join(name).is_file())
    };
    if let Some(name) = programs.iter().find(|name| !is_there(name)) {
        return Some(format!("{name} is not installed"));
    }
    let plugin = Path::new(harness::CNI_PLUGINS).join("bridge");
    (!plugin.exists()).then(|| format!("{} is not installed", plugin.display()))
}

/// Debian's own, and a newer one if it was fetched. The last runs all cases, others those where releases differ.
fn releases() -> Vec<Release> {
    let mut releases = vec![Release {
        name: "debian".to_owned(),
        programs: None,
    }];
    match harness::engine("containerd") {
        Ok(folder) => releases.push(Release {
            name: "newer".to_owned(),
            programs: Some(folder.join("usr/bin")),
        }),
        Err(reason) => eprintln!("SKIPPED cri with a newer containerd: {reason}"),
    }
    releases
}

fn trials(engines: &[Arc<Shared>]) -> Vec<Trial> {
    let ours = has_shim();
    if !ours {
        eprintln!(
            "SKIPPED cri with cofferdam: no containerd-shim-cofferdam-v2 in the installation under test"
        );
    }
    let mut trials = Vec::new();
    let newest = engines.last().map(|shared| &shared.release.name);
    for shared in engines {
        let is_older = Some(&shared.release.name) != newest;
        for &handler in Handler::of(shared.release.version()) {
            for (name, case) in CASES {
                if handler == Handler::Sandboxer && !compatibility::can_be_by_itself(name) {
                    continue;
                }
                let is_left_out = (is_older && !compatibility::differs_with_age(name))
                    || (handler == Handler::Sandboxer && !compatibility::differs_by_itself(name));
                let full = format!("{}::{}::{name}", shared.release.name, handler.name());
                let shared = Arc::clone(shared);
                let trial = Trial::test(full, move || run(&shared, handler, name, *case));
                let cannot = handler != Handler::Runc && !ours;
                trials.push(trial.with_ignored_flag(is_left_out || cannot));
            }
        }
    }
    trials
}

fn has_shim() -> bool {
    Prefix::find().is_ok_and(|prefix| {
        prefix
            .path()
            .join("bin/containerd-shim-cofferdam-v2")
            .exists()
    })
}

/// Runs a case, and looks at what it left.
fn run(shared: &Shared, handler: Handler, name: &'static str, case: Case) -> Result<(), Failed> {
    let wanted = match handler {
        Handler::Runc => Outcome::Works,
        Handler::Cofferdam => compatibility::outcome(name),
        Handler::Sandboxer => compatibility::outcome_by_itself(name),
    };
    // These end the daemon that others use.
    let own = name
        .starts_with("faults::")
        .then(|| Engine::start(&shared.release, shared.number + 100))
        .transpose()?;
    let engine = match &own {
        Some(engine) => engine,
        None => shared.engine()?,
    };
    let lab = Lab::new(engine, handler, name);
    let done = catch_unwind(AssertUnwindSafe(|| case(&lab)));
    let left = catch_unwind(AssertUnwindSafe(|| lab.assert_nothing_left()));
    match (wanted, done.and(left)) {
        (Outcome::Works | Outcome::Refused, Ok(())) | (Outcome::Fails, Err(_)) => Ok(()),
        (Outcome::Fails, Ok(())) => Err("it works, and the list says that it fails".into()),
        (_, Err(panic)) => {
            let text = panic
                .downcast_ref::<String>()
                .map_or_else(|| panic.downcast_ref::<&str>().copied(), |text| Some(text));
            Err(text.unwrap_or("it panicked").into())
        }
    }
}
