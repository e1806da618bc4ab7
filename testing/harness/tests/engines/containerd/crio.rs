//! Pods as CRI-O hands them to a shim (`runtime_type = "vm"`): its annotations, and namespaces that it has pinned.

use std::time::Duration;

use harness::wait_until;

use super::engine::{Containerd, shims};
use crate::pinned::{HOSTNAME, Made, SERVES, WAITS};

const LIMIT: Duration = Duration::from_secs(120);

fn run(containerd: &Containerd, made: &Made, name: &str) {
    let config = made.bundle(name).join("config.json");
    let config = config.to_str().expect("a path that is text");
    let id = made.id(name);
    containerd.ok(&["run", "--detach", "--null-io", "--config", config, &id]);
}

fn sh(containerd: &Containerd, made: &Made, name: &str, script: &str) -> String {
    let id = made.id(name);
    let exec = ["tasks", "exec", "--exec-id", "e", &id, "sh", "-c", script];
    let done = containerd.heard(&exec);
    assert_eq!(done.code, 0, "{done:?}");
    done.stdout
}

fn remove(containerd: &Containerd, made: &Made, name: &str) {
    let id = made.id(name);
    containerd.ok(&["tasks", "kill", "--signal", "KILL", &id]);
    containerd.expect_status(&id, "STOPPED");
    let _code_of_the_task = containerd.ctr(&["tasks", "delete", &id]);
    containerd.ok(&["containers", "delete", &id]);
}

#[test]
fn a_shim_has_all_of_a_pod_whose_namespaces_are_pinned() {
    shims(|containerd| {
        let made = Made::new(containerd.installation());
        made.write("sandbox", &WAITS, |_| {});
        made.write("one", &SERVES, |_| {});
        made.write("two", &WAITS, |_| {});
        for name in ["sandbox", "one", "two"] {
            run(containerd, &made, name);
        }
        if containerd.runtime.name() == "io.containerd.cofferdam.v2" {
            assert_eq!(containerd.processes(containerd.runtime.shim()).len(), 1);
        }
        let link = |name, kind| {
            let script = format!("readlink /proc/self/ns/{kind}");
            sh(containerd, &made, name, &script)
        };
        let shared =
            ["ipc", "uts", "net", "pid", "mnt"].map(|kind| link("one", kind) == link("two", kind));
        assert_eq!(shared, [true, true, true, false, false]);
        sh(
            containerd,
            &made,
            "one",
            "echo from one > /dev/shm/said; echo written",
        );
        let said = sh(containerd, &made, "two", "hostname; cat /dev/shm/said");
        assert_eq!(said, format!("{HOSTNAME}\nfrom one\n"));
        let answers = wait_until(LIMIT, || made.forwarded(8080).ends_with("served\n"));
        assert!(answers, "{:?}", containerd.runtime);
        remove(containerd, &made, "one");
        run(containerd, &made, "one");
        let again = sh(containerd, &made, "one", "hostname; cat /dev/shm/said");
        assert_eq!(again, said);
        for name in ["one", "two", "sandbox"] {
            remove(containerd, &made, name);
        }
        made.end();
    });
}
