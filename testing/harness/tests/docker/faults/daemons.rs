//! kill -9 of dockerd and of containerd.

use std::process::Stdio;
use std::time::Duration;

use crate::daemon::{Daemon, LIMIT, Options};
use crate::docker::Docker;
use crate::runtime::Release;

/// Counts, for as long as it is let.
const COUNTING: &str =
    "trap 'exit 3' TERM; i=0; while :; do i=$((i+1)); echo count $i; sleep 0.2; done";

fn daemon(release: &Release) -> Option<Daemon> {
    let options = Options {
        live_restore: true,
        ..Options::default()
    };
    Daemon::start(release, &options)
        .inspect_err(|reason| eprintln!("SKIPPED: {reason}"))
        .ok()
}

fn last_count(docker: &Docker, name: &str) -> u32 {
    let logs = docker.ok(&["logs", "--tail", "1", name]);
    logs.trim()
        .trim_start_matches("count ")
        .parse()
        .unwrap_or(0)
}

/// It runs on without its engine, which takes it up again: logs, exec and the exit code are as if nothing had been.
fn goes_on(docker: &Docker, name: &str, before: u32) {
    docker.expect(name, ".State.Running", "true");
    let goes_on = harness::wait_until(crate::daemon::LIMIT, || {
        last_count(docker, name) > before + 10
    });
    assert!(
        goes_on,
        "{:?}: it counts no further than {before}",
        docker.runtime
    );
    assert_eq!(docker.ok(&["exec", name, "echo", "in"]), "in\n");
    docker.ok(&["stop", "--time", "60", name]);
    assert_eq!(
        docker.inspect(name, ".State.ExitCode"),
        "3",
        "{:?}",
        docker.runtime
    );
}

pub fn docker_dies_and_adopts(release: &Release) {
    let Some(daemon) = daemon(release) else {
        return;
    };
    for runtime in release.runtimes() {
        let docker = Docker::new(&daemon, runtime, "docker-dies");
        let name = docker.background(&[], &["sh", "-c", COUNTING]);
        docker.expect_log(&name, "count 3");
        let before = last_count(&docker, &name);
        daemon.kill_docker();
        daemon.start_docker();
        goes_on(&docker, &name, before);
        docker.leaves_nothing();
    }
    daemon.leaves_nothing().expect("nothing left");
}

pub fn containerd_dies(release: &Release) {
    let Some(daemon) = daemon(release) else {
        return;
    };
    for runtime in release.runtimes() {
        let docker = Docker::new(&daemon, runtime, "containerd-dies");
        let name = docker.background(&[], &["sh", "-c", COUNTING]);
        docker.expect_log(&name, "count 3");
        let before = last_count(&docker, &name);
        daemon.kill_containerd();
        daemon.start_containerd();
        goes_on(&docker, &name, before);
        docker.leaves_nothing();
    }
    daemon.leaves_nothing().expect("nothing left");
}

/// Milliseconds after which a daemon dies. What is under way takes about a second.
const MOMENTS: [u64; 3] = [100, 400, 900];

/// Has the client do something, and dockerd killed and started again meanwhile.
fn interrupt(daemon: &Daemon, docker: &Docker, args: &[&str], moment: u64) {
    let mut client = docker
        .command(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the client starts");
    std::thread::sleep(Duration::from_millis(moment));
    daemon.kill_docker();
    daemon.start_docker();
    let ended = harness::wait_until(LIMIT, || matches!(client.try_wait(), Ok(Some(_))));
    if !ended {
        let (_killed, _reaped) = (client.kill(), client.wait());
    }
    assert!(ended, "{args:?} hangs {moment} ms after its begin");
}

pub fn docker_dies_in_between(release: &Release) {
    let Some(daemon) = daemon(release) else {
        return;
    };
    for runtime in release.runtimes() {
        let docker = Docker::new(&daemon, runtime, "docker-dies-in-between");
        let name = docker.name("c");
        for moment in MOMENTS {
            let run = [
                "run", "--detach", "--name", &name, "busybox", "sleep", "1000",
            ];
            interrupt(&daemon, &docker, &run, moment);
            // It may not have come to be.
            let _gone = docker.run(&["rm", "--force", &name]);
            docker.leaves_nothing();

            docker.ok(&run);
            let exec = ["exec", &name, "sh", "-c", "sleep 1; echo done"];
            interrupt(&daemon, &docker, &exec, moment);
            docker.expect(&name, ".State.Running", "true");
            assert_eq!(docker.ok(&["exec", &name, "echo", "in"]), "in\n");

            interrupt(&daemon, &docker, &["kill", &name], moment);
            let _ended = docker.run(&["kill", &name]);
            docker.expect(&name, ".State.Running", "false");
            // It starts again.
            docker.ok(&["start", &name]);
            assert_eq!(docker.ok(&["exec", &name, "echo", "in"]), "in\n");
            docker.ok(&["rm", "--force", &name]);
            docker.leaves_nothing();
        }
    }
    daemon.leaves_nothing().expect("nothing left");
}
