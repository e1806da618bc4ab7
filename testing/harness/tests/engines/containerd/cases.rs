//! What `ctr` can do.

use std::time::Duration;

use harness::{Terminal, wait_until};

use super::engine::all;

const OBEDIENT: &str = "trap 'exit 7' TERM; while :; do sleep 0.1; done";

#[test]
fn run_prints_and_has_the_exit_code() {
    all(|containerd| {
        let script = "echo out; echo err >&2; grep Seccomp: /proc/self/status; exit 3";
        let done = containerd.ctr(&[
            "run",
            "--rm",
            "--seccomp",
            &containerd.busybox,
            "a",
            "sh",
            "-c",
            script,
        ]);
        assert_eq!(
            (done.code, done.stdout.as_str()),
            (3, "out\nSeccomp:\t2\n"),
            "{done:?}"
        );
        assert!(done.stderr.contains("err"), "{done:?}");
        let missing = containerd.ctr(&["run", "--rm", &containerd.busybox, "a", "/nonexistent"]);
        assert!(missing.stderr.contains("/nonexistent"), "{missing:?}");
        missing.code
    });
}

#[test]
fn a_task_in_the_background_is_signalled_and_removed() {
    all(|containerd| {
        containerd.ok(&[
            "run",
            "--detach",
            &containerd.busybox,
            "b",
            "sh",
            "-c",
            OBEDIENT,
        ]);
        containerd.expect_status("b", "RUNNING");
        let done = containerd.ctr(&[
            "tasks",
            "exec",
            "--exec-id",
            "e",
            "b",
            "sh",
            "-c",
            "echo in; exit 4",
        ]);
        assert_eq!((done.code, done.stdout.as_str()), (4, "in\n"), "{done:?}");
        let typed = containerd.ctr_with(b"typed", &["tasks", "exec", "--exec-id", "e", "b", "cat"]);
        assert_eq!(typed.stdout, "typed", "{typed:?}");
        let missing = containerd.ctr(&["tasks", "exec", "--exec-id", "e", "b", "/nonexistent"]);
        assert!(missing.stderr.contains("/nonexistent"), "{missing:?}");
        assert_ne!(missing.code, 0);
        assert!(containerd.ok(&["tasks", "ps", "b"]).lines().count() >= 2);
        // The shell may not have set its trap when the task runs.
        let stopped = || {
            let _sent = containerd.ctr(&["tasks", "kill", "--signal", "TERM", "b"]);
            containerd.status("b").as_deref() == Some("STOPPED")
        };
        assert!(
            wait_until(Duration::from_secs(180), stopped),
            "{:?}",
            containerd.status("b")
        );
        let removed = containerd.ctr(&["tasks", "delete", "b"]);
        containerd.ok(&["containers", "delete", "b"]);
        assert!(removed.stderr.contains("exit code 7"), "{removed:?}");
    });
}

#[test]
fn kill_ends_a_task() {
    all(|containerd| {
        containerd.ok(&["run", "--detach", &containerd.busybox, "b", "sleep", "1000"]);
        containerd.ok(&["tasks", "kill", "--signal", "KILL", "b"]);
        containerd.expect_status("b", "STOPPED");
        let removed = containerd.ctr(&["tasks", "delete", "b"]);
        containerd.ok(&["containers", "delete", "b"]);
        assert!(removed.stderr.contains("exit code 137"), "{removed:?}");
    });
}

#[test]
fn pause_and_resume() {
    all(|containerd| {
        containerd.ok(&["run", "--detach", &containerd.busybox, "b", "sleep", "1000"]);
        containerd.ok(&["tasks", "pause", "b"]);
        assert_eq!(containerd.status("b").as_deref(), Some("PAUSED"));
        containerd.ok(&["tasks", "resume", "b"]);
        assert_eq!(containerd.status("b").as_deref(), Some("RUNNING"));
        containerd.ok(&["tasks", "kill", "--signal", "KILL", "b"]);
        containerd.expect_status("b", "STOPPED");
        let _code_of_the_task = containerd.ctr(&["tasks", "delete", "b"]);
        containerd.ok(&["containers", "delete", "b"]);
    });
}

#[test]
fn a_terminal() {
    all(|containerd| {
        let script = "read line; echo got $line; stty size; exit 6";
        let run = containerd.command(&[
            "run",
            "--rm",
            "--tty",
            &containerd.busybox,
            "t",
            "sh",
            "-c",
            script,
        ]);
        let mut terminal = Terminal::start(&run, 37, 91);
        // Sizes travel apart from what is typed: the first line may come first.
        let listening = || {
            containerd
                .ctr(&["tasks", "list", "--quiet"])
                .stdout
                .contains('t')
        };
        assert!(
            wait_until(Duration::from_secs(180), listening),
            "it does not start"
        );
        std::thread::sleep(Duration::from_secs(2));
        terminal.write("words\r");
        terminal.expect("got words");
        terminal.expect("37 91");
        terminal.finish()
    });
}
