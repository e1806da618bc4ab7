//! What our processes do while nothing happens: nothing. strace(1) sees every system call, and none is without waking up.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::{Cofferdam, descendant, wait_until};

use super::engine::{Runtime, shims};
use crate::runtime::has;

const LIMIT: Duration = Duration::from_secs(60);

/// How long they are watched.
const WHILE: Duration = Duration::from_secs(10);

/// Wants them to be quiet, once what they have begun with is over: threads that had work end after some seconds.
fn come_to_rest(mut calls: impl FnMut() -> Vec<String>) {
    let mut last = Vec::new();
    let rest = (0..6).any(|_| {
        last = calls();
        last.is_empty()
    });
    assert!(rest, "{last:#?}");
}

/// System calls of these processes and all of their threads during `happens`.
fn calls(cofferdam: &Cofferdam, pids: &[i32], happens: impl FnOnce()) -> Vec<String> {
    let file = cofferdam.folder().join("strace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o"]).arg(&file);
    for pid in pids {
        strace.arg("-p").arg(pid.to_string());
    }
    let said = cofferdam.folder().join("strace.said");
    let sink = fs::File::create(&said).expect("a file");
    let mut strace = strace
        .stdin(Stdio::null())
        .stderr(sink)
        .spawn()
        .expect("strace starts");
    let attached = wait_until(LIMIT, || {
        let said = fs::read_to_string(&said).unwrap_or_default();
        pids.iter()
            .all(|pid| said.contains(&format!("Process {pid} attached")))
    });
    assert!(
        attached,
        "{}",
        fs::read_to_string(&said).unwrap_or_default()
    );
    let before = fs::read_to_string(&file)
        .unwrap_or_default()
        .lines()
        .count();
    happens();
    let after = fs::read_to_string(&file).unwrap_or_default();
    let (_killed, _reaped) = (strace.kill(), strace.wait());
    after.lines().skip(before).map(str::to_owned).collect()
}

#[test]
fn an_idle_shim_makes_no_system_call() {
    if !has(&["strace"]) {
        return;
    }
    shims(|containerd| {
        let image = &containerd.busybox;
        containerd.ok(&["run", "--detach", "--null-io", image, "i", "sleep", "1000"]);
        if containerd.runtime == Runtime::Shim {
            let shim = containerd.processes(containerd.runtime.shim())[0];
            let server = descendant(shim, "cofferdam-fs").expect("a file server");
            let watch =
                |happens: &dyn Fn()| calls(containerd.installation(), &[shim, server], happens);
            come_to_rest(|| watch(&|| std::thread::sleep(WHILE)));
            let busy = watch(&|| {
                containerd.ok(&["tasks", "exec", "--exec-id", "x", "i", "ls", "/"]);
            });
            assert!(busy.len() > 10, "strace sees nothing: {busy:?}");
        }
        super::shim::remove(containerd, "i");
    });
}

#[test]
fn idle_processes_of_the_command_make_no_system_call() {
    if !has(&["strace"]) {
        return;
    }
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    cofferdam.ok([
        "run",
        "-d",
        "--name",
        "i",
        cofferdam.busybox(),
        "sleep",
        "100000",
    ]);
    let actors = cofferdam.actors("i");
    let server = actors.helper("cofferdam-fs").expect("a file server");
    let pids = [actors.driver, actors.proxy, server];
    come_to_rest(|| calls(&cofferdam, &pids, || std::thread::sleep(WHILE)));
    let busy = calls(&cofferdam, &pids, || {
        cofferdam.ok(["exec", "i", "ls", "/"]);
    });
    assert!(busy.len() > 10, "strace sees nothing: {busy:?}");
    cofferdam.ok(["rm", "-f", "i"]);
    cofferdam.assert_nothing_left();
}
