//! What is left when processes are killed.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::{VMM, descendant, is_alive, patient, wait_until};

use super::engine::{Containerd, Runtime, shims};

const SHIM: &str = "containerd-shim-cofferdam-v2";
const LIMIT: Duration = Duration::from_secs(120);

fn gone(containerd: &Containerd, name: &str) {
    let none = wait_until(LIMIT, || containerd.processes(name).is_empty());
    assert!(none, "{:?} of {name} are left", containerd.processes(name));
}

#[test]
fn a_killed_shim_takes_its_container_along() {
    shims(|containerd| {
        containerd.ok(&["run", "--detach", &containerd.busybox, "k", "sleep", "1000"]);
        let socket = containerd.socket("k");
        let shims = containerd.processes(containerd.runtime.shim());
        assert_eq!(shims.len(), 1);
        let helpers = [VMM, "cofferdam-fs"].map(|name| descendant(shims[0], name));
        containerd.kill9(shims[0]);
        // The list leaves a task out as soon as its shim does not answer; containerd removes the bundle when
        // the shim's `delete` has cleared up.
        let cleared = wait_until(LIMIT, || {
            containerd.status("k").is_none() && !containerd.bundle("k").exists()
        });
        assert!(cleared, "{:?}", containerd.status("k"));
        containerd.ok(&["containers", "delete", "k"]);
        gone(containerd, containerd.runtime.shim());
        if containerd.runtime == Runtime::Shim {
            assert!(!socket.exists(), "{} is left", socket.display());
            for helper in helpers {
                let helper = helper.expect("VMM and file server");
                assert!(wait_until(LIMIT, || !is_alive(helper)), "{helper} is left");
            }
        }
        // The name can be used again.
        let again = ["run", "--rm", &containerd.busybox, "k", "echo", "again"];
        let mut done = containerd.ctr(&again);
        // containerd forgets the task a moment after its bundle, and does not say when.
        wait_until(LIMIT, || {
            let forgotten = !done.stderr.contains("already exists");
            if !forgotten {
                done = containerd.ctr(&again);
            }
            forgotten
        });
        assert_eq!(
            (done.code, done.stdout.as_str()),
            (0, "again\n"),
            "{done:?}"
        );
    });
}

#[test]
fn a_killed_vmm_ends_its_container() {
    shims(|containerd| {
        containerd.ok(&["run", "--detach", &containerd.busybox, "v", "sleep", "1000"]);
        let list = containerd.ok(&["tasks", "list"]);
        let line = list
            .lines()
            .find(|line| line.starts_with('v'))
            .expect("the task");
        let pid = line
            .split_whitespace()
            .nth(1)
            .expect("a pid")
            .parse()
            .expect("a pid");
        // For runc that is the container's process.
        containerd.kill9(pid);
        containerd.expect_status("v", "STOPPED");
        let removed = containerd.ctr(&["tasks", "delete", "v"]);
        assert!(removed.stderr.contains("exit code 137"), "{removed:?}");
        containerd.ok(&["containers", "delete", "v"]);
    });
}

#[test]
fn a_restarted_containerd_finds_its_task_and_all_of_its_output() {
    shims(|containerd| {
        let script = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.1; done";
        containerd.ok(&[
            "run",
            "--detach",
            &containerd.busybox,
            "r",
            "sh",
            "-c",
            script,
        ]);
        let read = |lines: usize| -> Vec<u64> {
            let mut attached = containerd
                .command(&["tasks", "attach", "r"])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .expect("ctr starts");
            let stream = BufReader::new(attached.stdout.take().expect("a pipe"));
            let numbers = stream
                .lines()
                .take(lines)
                .map(|line| line.expect("a line").parse().expect("a number"))
                .collect();
            let _ended = attached.kill();
            let _reaped = attached.wait();
            numbers
        };
        // A client may take lines along that it did not show; none is lost between those that come.
        let whole = |numbers: &[u64]| numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
        let before = read(5);
        assert!(whole(&before), "{before:?}");
        containerd.restart();
        containerd.expect_status("r", "RUNNING");
        let after = read(20);
        assert!(whole(&after), "{after:?}");
        let done = containerd.ctr(&["tasks", "exec", "--exec-id", "x", "r", "echo", "in"]);
        assert_eq!(done.stdout, "in\n", "{done:?}");
        containerd.ok(&["tasks", "kill", "--signal", "KILL", "r"]);
        containerd.expect_status("r", "STOPPED");
        let _code = containerd.ctr(&["tasks", "delete", "r"]);
        containerd.ok(&["containers", "delete", "r"]);
    });
}

#[test]
fn an_end_while_containerd_is_down_is_known_afterwards() {
    shims(|containerd| {
        let script = "sleep 3; exit 9";
        containerd.ok(&[
            "run",
            "--detach",
            "--null-io",
            &containerd.busybox,
            "d",
            "sh",
            "-c",
            script,
        ]);
        containerd.restart_after(Duration::from_secs(8));
        containerd.expect_status("d", "STOPPED");
        let removed = containerd.ctr(&["tasks", "delete", "d"]);
        assert!(removed.stderr.contains("exit code 9"), "{removed:?}");
        containerd.ok(&["containers", "delete", "d"]);
    });
}

#[test]
fn a_start_that_is_killed_leaves_nothing() {
    shims(|containerd| {
        if containerd.runtime == Runtime::Runc {
            // Too short to be hit: it shows that the case's clearing up works.
            let done = containerd.ctr(&["run", "--rm", &containerd.busybox, "s", "true"]);
            assert_eq!(done.code, 0, "{done:?}");
            return;
        }
        for phase in [SHIM, "cofferdam-fs", VMM] {
            let mut run = containerd
                .command(&["run", "--rm", &containerd.busybox, "s", "true"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("ctr starts");
            let mut victim = None;
            wait_until(LIMIT, || {
                let shim = containerd.processes(SHIM).last().copied();
                victim = match phase {
                    SHIM => shim,
                    helper => shim.and_then(|shim| descendant(shim, helper)),
                };
                victim.is_some()
            });
            let victim = victim.expect(phase);
            containerd.kill9(victim);
            let begun = Instant::now();
            let ended = wait_until(LIMIT, || matches!(run.try_wait(), Ok(Some(_))));
            assert!(ended, "ctr hangs when {phase} is killed");
            assert!(begun.elapsed() < patient(Duration::from_secs(60)));
            let _left = containerd.ctr(&["tasks", "delete", "--force", "s"]);
            let _left = containerd.ctr(&["containers", "delete", "s"]);
            assert!(wait_until(LIMIT, || !is_alive(victim)));
            gone(containerd, SHIM);
        }
    });
}

#[test]
fn a_shim_serves_only_its_socket_and_ends_with_its_task() {
    shims(|containerd| {
        containerd.ok(&["run", "--detach", &containerd.busybox, "o", "sleep", "1000"]);
        let socket = containerd.socket("o");
        assert!(UnixStream::connect(&socket).is_ok());
        containerd.ok(&["tasks", "kill", "--signal", "KILL", "o"]);
        containerd.expect_status("o", "STOPPED");
        let _code = containerd.ctr(&["tasks", "delete", "o"]);
        containerd.ok(&["containers", "delete", "o"]);
        gone(containerd, containerd.runtime.shim());
        assert!(!socket.exists());
    });
}
