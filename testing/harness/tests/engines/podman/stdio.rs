//! Output, input, terminals and exit codes.

use harness::{Terminal, wait_until};
use std::time::Duration;

use super::engine::{Podman, both};
use crate::runtime::Kind;

#[test]
fn output_input_and_exit_code_are_the_containers() {
    both(|podman| {
        let script = "echo out; echo err >&2; cat; exit 3";
        let done = podman.run_with(
            b"typed\n",
            &["run", "--rm", "-i", "busybox", "sh", "-c", script],
        );
        assert_eq!(
            (done.code, done.stdout.as_str(), done.stderr.as_str()),
            (3, "out\ntyped\n", "err\n")
        );
        let killed = podman.run(&["run", "--rm", "busybox", "sh", "-c", "kill -9 $$"]);
        killed.code
    });
}

#[test]
fn commands_that_cannot_run_have_their_exit_codes() {
    both(|podman| {
        let missing = podman.run(&["run", "--rm", "busybox", "/nonexistent"]);
        assert!(missing.stderr.contains("/nonexistent"), "{missing:?}");
        let unknown = podman.run(&["run", "--rm", "busybox", "no-such-command"]);
        assert!(unknown.stderr.contains("no-such-command"), "{unknown:?}");
        let no_program = podman.run(&["run", "--rm", "busybox", "/etc/passwd"]);
        let codes = (missing.code, unknown.code, no_program.code);
        assert_eq!(
            codes,
            (127, 127, 126),
            "{missing:?} {unknown:?} {no_program:?}"
        );
    });
}

/// A script that waits for a size: it is on its way through podman, conmon and the runtime, of whom none
/// says when it is there, and the command may be faster.
fn sized(rows: u16, columns: u16) -> String {
    let size = format!("{rows} {columns}");
    format!("until [ \"$(stty size)\" = '{size}' ]; do sleep 0.1; done; echo is {size}")
}

#[test]
fn a_terminal_has_the_callers_size() {
    both(|podman| {
        let script = sized(33, 77) + "; read line; echo got $line; " + &sized(44, 88) + "; exit 9";
        let run = podman.command(&["run", "--rm", "-it", "busybox", "sh", "-c", &script]);
        let mut terminal = Terminal::start(&run, 33, 77);
        terminal.expect("is 33 77");
        terminal.resize(44, 88);
        terminal.write("words\r");
        terminal.expect("got words");
        terminal.expect("is 44 88");
        terminal.finish()
    });
}

#[test]
fn exec_at_a_terminal() {
    both(|podman| {
        podman.ok(&["run", "-d", "--name", "c", "busybox", "sleep", "1000"]);
        let script = sized(21, 65) + "; read line; echo got $line; exit 4";
        let exec = podman.command(&["exec", "-it", "c", "sh", "-c", &script]);
        let mut terminal = Terminal::start(&exec, 21, 65);
        terminal.expect("is 21 65");
        terminal.write("more\r");
        terminal.expect("got more");
        let code = terminal.finish();
        podman.ok(&["rm", "--force", "--time", "0", "c"]);
        code
    });
}

#[test]
fn exec_has_stdio_and_exit_codes_of_its_own() {
    both(|podman| {
        podman.ok(&["run", "-d", "--name", "c", "busybox", "sleep", "1000"]);
        let done = podman.run_with(
            b"typed",
            &["exec", "-i", "c", "sh", "-c", "echo err >&2; cat; exit 5"],
        );
        assert_eq!(
            (done.stdout.as_str(), done.stderr.trim()),
            ("typed", "err"),
            "{done:?}"
        );
        let missing = podman.run(&["exec", "c", "/nonexistent"]);
        assert!(missing.stderr.contains("/nonexistent"), "{missing:?}");
        let no_program = podman.run(&["exec", "c", "/etc/passwd"]);
        let place = podman.ok(&[
            "exec",
            "-w",
            "/tmp",
            "-e",
            "WORD=there",
            "-u",
            "1000",
            "c",
            "sh",
            "-c",
            "pwd; echo $WORD; id -u",
        ]);
        podman.ok(&["rm", "--force", "--time", "0", "c"]);
        let codes = (done.code, missing.code, no_program.code);
        assert_eq!(codes, (5, 127, 126), "{done:?} {missing:?} {no_program:?}");
        place
    });
}

#[test]
fn signals_to_podman_reach_the_container() {
    both(|podman| {
        let script = "trap 'echo bye; exit 8' TERM; echo ready; while :; do sleep 0.1; done";
        let run = podman.start(&["run", "--rm", "--name", "c", "busybox", "sh", "-c", script]);
        let ready = || podman.run(&["logs", "c"]).stdout.contains("ready");
        assert!(
            wait_until(Duration::from_secs(180), ready),
            "it does not start"
        );
        run.signal(15);
        let done = run.finish(Duration::from_secs(180));
        (done.code, done.stdout)
    });
}

#[test]
fn a_debian_image_runs() {
    if !crate::runtime::has(&["podman", "conmon", "runc"]) {
        return;
    }
    let [runc, ours] = Kind::BOTH.map(|kind| {
        let podman = Podman::new(kind, "debian")?;
        let script = "cat /etc/os-release; dpkg --print-architecture; getent passwd root; sort -u /etc/group | wc -l";
        Some(podman.ok(&["run", "--rm", "debian:bookworm", "bash", "-c", script]))
    });
    assert_eq!(runc, ours);
    assert!(ours.is_none_or(|text| text.contains("ID=debian")));
}
