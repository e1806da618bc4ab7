//! What goes in and out: pipes, terminals, logs.

use harness::Terminal;

use super::{Verdict, observed};
use crate::daemon::LIMIT;
use crate::docker::Docker;

pub fn stdin_from_a_pipe(docker: &Docker) -> Verdict {
    let text: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    let done = docker.run_with(text.as_bytes(), &["run", "--rm", "-i", "busybox", "md5sum"]);
    let closed = docker.run_with(b"typed", &["run", "--rm", "busybox", "cat"]);
    observed((done.code, done.stdout, closed.code, closed.stdout))
}

pub fn much_output(docker: &Docker) -> Verdict {
    let done = docker.try_sh(&[], "seq 500000; seq 100 >&2");
    assert_eq!(done.stdout.lines().last(), Some("500000"));
    observed((done.code, done.stdout.len(), done.stderr.lines().count()))
}

pub fn terminal_and_its_size(docker: &Docker) -> Verdict {
    let script = "tty; trap 'stty size' WINCH; echo listening; while :; do read line && echo got $line; test \"$line\" = end && exit 6; done";
    let command = docker.command(&["run", "--rm", "-it", "busybox", "sh", "-c", script]);
    let mut terminal = Terminal::start(&command, 37, 91);
    terminal.expect("listening");
    terminal.resize(40, 100);
    terminal.expect("40 100");
    terminal.write("words\r");
    terminal.expect("got words");
    terminal.write("end\r");
    observed(terminal.finish())
}

pub fn terminal_of_an_exec(docker: &Docker) -> Verdict {
    let name = docker.background(&[], &["sleep", "1000"]);
    let command = docker.command(&["exec", "-it", &name, "sh"]);
    let mut terminal = Terminal::start(&command, 37, 91);
    terminal.write("stty size; tty; echo $((40 + 2))\r");
    terminal.expect("42");
    terminal.write("\u{3}");
    terminal.write("exit 4\r");
    observed(terminal.finish())
}

pub fn interrupt_from_the_terminal(docker: &Docker) -> Verdict {
    let script = "trap 'echo caught; exit 5' INT; echo listening; while :; do sleep 0.1; done";
    let command = docker.command(&["run", "--rm", "-it", "busybox", "sh", "-c", script]);
    let mut terminal = Terminal::start(&command, 25, 80);
    terminal.expect("listening");
    terminal.write("\u{3}");
    terminal.expect("caught");
    observed(terminal.finish())
}

pub fn detach_and_attach(docker: &Docker) -> Verdict {
    let name = docker.name("c");
    let script = "echo listening; while read line; do echo got $line; done";
    let command = docker.command(&["run", "-it", "--name", &name, "busybox", "sh", "-c", script]);
    let mut terminal = Terminal::start(&command, 25, 80);
    terminal.expect("listening");
    terminal.write("\u{10}\u{11}");
    let left = terminal.finish();
    let running = docker.inspect(&name, ".State.Running");
    let command = docker.command(&["attach", "--detach-keys", "ctrl-a,d", &name]);
    let mut terminal = Terminal::start(&command, 25, 80);
    // The line is not lost, however long attaching takes.
    terminal.write("more\r");
    terminal.expect("got more");
    terminal.write("\u{1}d");
    let left_again = terminal.finish();
    observed((
        left,
        running,
        left_again,
        docker.inspect(&name, ".State.Running"),
    ))
}

pub fn attach_passes_signals_and_the_exit_code(docker: &Docker) -> Verdict {
    let script = "trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    let name = docker.background(&[], &["sh", "-c", script]);
    docker.expect_log(&name, "ready");
    let mut attached = docker.start(&["attach", &name]);
    let ended = harness::wait_until(LIMIT, || {
        if docker.inspect(&name, ".State.Running") == "true" {
            // A signal that comes before the client passes signals on ends the client.
            if !attached.is_running() {
                attached = docker.start(&["attach", &name]);
            }
            std::thread::sleep(std::time::Duration::from_secs(1));
            attached.signal(15);
        }
        docker.run(&["logs", &name]).stdout.contains("caught")
    });
    assert!(
        ended,
        "the signal does not arrive with {:?}",
        docker.runtime
    );
    observed((
        attached.finish(LIMIT).code,
        docker.inspect(&name, ".State.ExitCode"),
    ))
}

pub fn logs(docker: &Docker) -> Verdict {
    let script = "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; sleep 0.1; done";
    let name = docker.background(&[], &["sh", "-c", script]);
    docker.ok(&["wait", &name]);
    let all = docker.run(&["logs", &name]);
    let last = docker.run(&["logs", "--tail", "2", &name]);
    observed((
        all.stdout,
        all.stderr,
        last.stdout.lines().count() + last.stderr.lines().count(),
    ))
}

pub fn logs_that_follow(docker: &Docker) -> Verdict {
    let script = "for i in $(seq 30); do echo line $i; sleep 0.1; done; exit 2";
    let name = docker.background(&[], &["sh", "-c", script]);
    let followed = docker.start(&["logs", "--follow", &name]).finish(LIMIT);
    observed((followed.code, followed.stdout))
}

pub fn attached_to_some_streams(docker: &Docker) -> Verdict {
    let script = "echo out; echo err >&2; cat";
    let done = docker.run_with(
        b"typed\n",
        &[
            "run", "--rm", "-i", "-a", "stdin", "-a", "stdout", "busybox", "sh", "-c", script,
        ],
    );
    observed((done.code, done.stdout, done.stderr))
}
