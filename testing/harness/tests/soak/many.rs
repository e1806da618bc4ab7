//! Containers with a machine each: many at once, and one after the other.

use std::collections::BTreeSet;
use std::thread;

use crate::counts::Counts;
use crate::host::{Host, Runtime};
use crate::size::Size;

/// Thirty at once, a few times.
pub fn at_once(host: &Host, runtime: Runtime) {
    let size = Size::asked(runtime == Runtime::Runc);
    // What an engine and a runtime make once and keep is no leftover.
    one(host, runtime, "warm");
    let before = Counts::at_rest(&host.scope);
    for round in 0..size.rounds {
        let names: Vec<_> = (0..size.parallel)
            .map(|n| format!("p{round}-{n}"))
            .collect();
        let kernels: BTreeSet<String> = each(&names, |name| {
            let image = host.busybox();
            host.run(runtime, &["--detach", image, name, "sleep", "100000"]);
            let boot = "/proc/sys/kernel/random/boot_id";
            host.ok(&["tasks", "exec", "--exec-id", "e", name, "cat", boot])
        })
        .into_iter()
        .collect();
        assert_eq!(host.running(), size.parallel);
        let expected = match runtime {
            Runtime::Runc => 1,
            Runtime::Command | Runtime::Shim => size.parallel,
        };
        assert_eq!(kernels.len(), expected, "kernels of {runtime:?}");
        let during = Counts::take(&host.scope);
        assert_ne!(during, before, "containers that nobody can see");
        each(&names, |name| host.remove(name));
    }
    before.assert_again(&host.scope, &format!("behind {size:?} of {runtime:?}"));
}

/// Started and ended, one after the other.
pub fn in_a_row(host: &Host, runtime: Runtime) {
    let size = Size::asked(runtime == Runtime::Runc);
    one(host, runtime, "warm");
    let before = Counts::at_rest(&host.scope);
    for number in 0..size.row {
        one(host, runtime, &format!("r{number}"));
    }
    before.assert_again(
        &host.scope,
        &format!("behind {} containers of {runtime:?}", size.row),
    );
}

fn one(host: &Host, runtime: Runtime, name: &str) {
    let said = host.run(runtime, &["--rm", host.busybox(), name, "echo", name]);
    assert_eq!(said, format!("{name}\n"));
}

fn each<T: Send>(names: &[String], work: impl Fn(&str) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = names
            .iter()
            .map(|name| scope.spawn(move || work(name)))
            .collect();
        threads
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}
