//! kill -9 of containerd, of a shim and of a virtual machine while something is under way: soon after it began, and later.
//! Shims and machines that die while a task is made are elsewhere; containerd 1.6 that dies then forgets runc's shim, too.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use harness::wait_until;

use super::engine::{Containerd, shims};

const LIMIT: Duration = Duration::from_secs(120);

/// Milliseconds after which it happens. What is under way takes some hundred.
const MOMENTS: [u64; 4] = [0, 60, 200, 450];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Containerd,
    Shim,
    /// runc: the container's process.
    Machine,
}

/// The first process of a task, as containerd knows it.
fn pid(containerd: &Containerd, task: &str) -> i32 {
    let list = containerd.ok(&["tasks", "list"]);
    let mut lines = list.lines().map(|line| line.split_whitespace());
    let found = lines.find_map(|mut words| (words.next() == Some(task)).then(|| words.next()));
    let pid = found.flatten().and_then(|pid| pid.parse().ok());
    pid.unwrap_or_else(|| panic!("no {task} in {list}"))
}

/// Begins a client's command, kills the victim, and waits until the client has ended.
fn interrupt(containerd: &Containerd, args: &[&str], moment: u64, kill: impl FnOnce()) {
    let mut client = containerd
        .command(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("ctr starts");
    thread::sleep(Duration::from_millis(moment));
    kill();
    let ended = wait_until(LIMIT, || matches!(client.try_wait(), Ok(Some(_))));
    if !ended {
        let (_killed, _reaped) = (client.kill(), client.wait());
    }
    assert!(
        ended,
        "{args:?} hangs {moment} ms after its begin: {}",
        containerd.log()
    );
}

/// Whatever there is of it goes.
fn clear(containerd: &Containerd, name: &str) {
    let mut last = Vec::new();
    let gone = wait_until(LIMIT, || {
        last = vec![
            containerd.ctr(&["tasks", "kill", "--signal", "KILL", name]),
            containerd.ctr(&["tasks", "delete", "--force", name]),
        ];
        containerd.status(name).is_none() && !containerd.bundle(name).exists()
    });
    assert!(gone, "{last:?}\n{}", containerd.log());
    let _none = containerd.ctr(&["containers", "delete", name]);
    assert_eq!(containerd.ok(&["containers", "list", "--quiet"]), "");
}

fn kill(containerd: &Containerd, victim: Victim, (shims, machine): (&[i32], i32)) {
    match victim {
        Victim::Containerd => containerd.restart(),
        Victim::Shim => shims.iter().for_each(|&shim| containerd.kill9(shim)),
        Victim::Machine => containerd.kill9(machine),
    }
}

/// A container that runs, and is in use when it happens.
fn with_container(victims: &[Victim], prepare: impl Fn(&Containerd), args: &[&str], stays: bool) {
    shims(|containerd| {
        for &victim in victims {
            for moment in MOMENTS {
                containerd.ok(&[
                    "run",
                    "--detach",
                    "--null-io",
                    &containerd.busybox,
                    "p",
                    "sleep",
                    "1000",
                ]);
                let shims = containerd.processes(containerd.runtime.shim());
                let machine = pid(containerd, "p");
                prepare(containerd);
                interrupt(containerd, args, moment, || {
                    kill(containerd, victim, (&shims, machine));
                });
                if stays && victim == Victim::Containerd {
                    assert_eq!(containerd.status("p").as_deref(), Some("RUNNING"));
                    let mut last = None;
                    let exec = ["tasks", "exec", "--exec-id", "y", "p", "echo", "in"];
                    // On a busy machine ctr may leave before it has read what there is, with runc's shim too.
                    let works = wait_until(LIMIT, || {
                        let done = containerd.ctr(&exec);
                        last = Some(done);
                        last.as_ref().is_some_and(|done| done.stdout == "in\n")
                    });
                    assert!(works, "{moment} ms: {last:?}");
                }
                clear(containerd, "p");
            }
        }
    });
}

#[test]
fn something_dies_while_a_command_is_executed() {
    let victims = [Victim::Containerd, Victim::Shim, Victim::Machine];
    let args = [
        "tasks",
        "exec",
        "--exec-id",
        "x",
        "p",
        "sh",
        "-c",
        "sleep 1; echo done",
    ];
    with_container(&victims, |_| {}, &args, true);
}

#[test]
fn something_dies_while_a_task_is_deleted() {
    let ends = |containerd: &Containerd| {
        containerd.ok(&["tasks", "kill", "--signal", "KILL", "p"]);
        containerd.expect_status("p", "STOPPED");
    };
    // A containerd 1.6 that dies here may keep the folder of runc's task.
    with_container(&[Victim::Shim], ends, &["tasks", "delete", "p"], false);
}

#[test]
fn something_dies_while_a_task_is_killed() {
    let victims = [Victim::Containerd, Victim::Shim];
    with_container(
        &victims,
        |_| {},
        &["tasks", "kill", "--signal", "KILL", "p"],
        false,
    );
}
