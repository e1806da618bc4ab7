//! kill -9 of dockerd and of containerd.

use crate::daemon::{Daemon, Options};
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
