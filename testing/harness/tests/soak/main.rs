//! Many containers, and then nothing of them: processes, mounts, interfaces, namespaces, control groups, sockets,
//! descriptors, files and memory are what they were.
//!
//! `COFFERDAM_TEST_SOAK=full` does as much as takes some ten minutes.

mod counts;
mod host;
mod leaks;
mod many;
mod pod;
mod size;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use harness::{Containerd, Prefix, enclosure, image};
use libtest_mimic::{Arguments, Trial};

use host::{Host, IMAGE, Runtime};

/// Everything that is written goes to memory of the test's own, so that all of it can be counted.
const TEMPORARY: &str = "/run/temporary";

type Case = fn(&Host);

const CASES: [(&str, Case); 8] = [
    ("at_once::runc", |host| many::at_once(host, Runtime::Runc)),
    ("at_once::command", |host| {
        many::at_once(host, Runtime::Command)
    }),
    ("at_once::shim", |host| many::at_once(host, Runtime::Shim)),
    ("in_a_row::runc", |host| many::in_a_row(host, Runtime::Runc)),
    ("in_a_row::command", |host| {
        many::in_a_row(host, Runtime::Command)
    }),
    ("in_a_row::shim", |host| many::in_a_row(host, Runtime::Shim)),
    ("pod::runc", |host| {
        pod::outlives_its_containers(host, "runc")
    }),
    ("pod::shim", |host| {
        pod::outlives_its_containers(host, "cofferdam")
    }),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each counts everything that is there.
    arguments.test_threads = Some(1);
    if !arguments.list && !enclosure::is_inside() {
        return match missing() {
            None => enclosure::enter(Some(Path::new(TEMPORARY))),
            Some(reason) => {
                eprintln!("SKIPPED soak: {reason}");
                ExitCode::SUCCESS
            }
        };
    }
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(None)).exit_code();
    }
    enclosure::memory("/dev/shm");
    enclosure::prepare(Path::new("/run/covered"));
    fs::create_dir(TEMPORARY).expect("a folder");
    let host = Host::start().expect("an engine");
    let conclusion = libtest_mimic::run(&arguments, trials(Some(Arc::new(host))));
    enclosure::end();
    conclusion.exit_code()
}

/// Why nothing can run here.
fn missing() -> Option<String> {
    let built = Prefix::find().map(drop);
    let built = built.and_then(|()| image(IMAGE).map(drop));
    built.err().or_else(Containerd::missing)
}

fn trials(host: Option<Arc<Host>>) -> Vec<Trial> {
    let mut trials = vec![Trial::test("leaks::are_seen", || {
        leaks::are_seen();
        Ok(())
    })];
    for (name, case) in CASES {
        let host = host.clone();
        trials.push(Trial::test(name, move || {
            if let Some(host) = host {
                case(&host);
            }
            Ok(())
        }));
    }
    trials
}
