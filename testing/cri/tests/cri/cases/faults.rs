//! Killed processes. Each case has an engine of its own.

use std::fs;
use std::time::Duration;

use cri::v1::{ContainerState, Mount, PodSandboxState};
use harness::wait_until;
use rustix::process::{Pid, Signal, kill_process};

use crate::lab::Lab;
use crate::pod::{command, script};

/// Pods and their output outlive the engine.
pub fn engine_killed(lab: &Lab) {
    let pod = lab.pod();
    let talks = pod.run(script(
        "talks",
        "i=0; while :; do i=$((i + 1)); echo $i; sleep 0.2; done",
    ));
    talks.wait_for(" F 2\n");
    lab.engine.kill_and_restart_after(|| {});
    let state = pod.status().expect("a status").state();
    assert_eq!(state, PodSandboxState::SandboxReady);
    let status = talks.status().expect("a status");
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    let before = talks.stdout().lines().count();
    let goes_on = wait_until(Duration::from_secs(60), || {
        talks.stdout().lines().count() > before + 3
    });
    assert!(goes_on, "nothing comes any more: {}", talks.stdout());
    assert_eq!(talks.exec("echo fine"), (0, "fine\n".to_owned()));
    assert_eq!(
        pod.finish(script("next", "echo new")),
        (0, "new\n".to_owned())
    );
    pod.stop().expect("a stop");
    pod.remove().expect("a removal");
}

/// Containers that end while there is no engine are seen as ended by the next one.
pub fn ended_without_the_engine(lab: &Lab) {
    let pod = lab.pod();
    let mut config = script(
        "ends",
        "while ! test -e /told/go; do sleep 0.1; done; exit 5",
    );
    config.mounts = vec![Mount {
        container_path: "/told".to_owned(),
        host_path: lab.folder().to_str().expect("a path").to_owned(),
        ..Mount::default()
    }];
    let ends = pod.run(config);
    let stays = pod.run(command("stays", &["sleep", "1000"]));
    lab.engine.kill_and_restart_after(|| {
        fs::write(lab.folder().join("go"), "").expect("a file");
        // Nobody could tell when it has ended.
        std::thread::sleep(Duration::from_secs(3));
    });
    let status = ends.wait();
    // Versions from 2.0 on do not ask for the code.
    if lab.engine.version < (2, 0) {
        assert_eq!(status.exit_code, 5);
    }
    let status = stays.status().expect("a status");
    assert_eq!(status.state(), ContainerState::ContainerRunning);
}

/// The pod is seen as ended, and goes without a trace.
pub fn shim_killed(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run(command("main", &["sleep", "1000"]));
    let shims: Vec<_> = lab
        .engine
        .helpers()
        .into_iter()
        .filter(|(_, line)| line.contains("containerd-shim"))
        .collect();
    assert_eq!(shims.len(), 1, "one for a pod: {shims:?}");
    let shim = Pid::from_raw(shims[0].0).expect("a pid");
    kill_process(shim, Signal::KILL).expect("a shim to kill");
    let seen = wait_until(Duration::from_secs(60), || {
        container.status().expect("a status").state() != ContainerState::ContainerRunning
            && pod.status().expect("a status").state() == PodSandboxState::SandboxNotready
    });
    assert!(seen, "{:?} {:?}", container.status(), pod.status());
    pod.stop().expect("a stop");
    pod.remove().expect("a removal");
    let gone = wait_until(Duration::from_secs(60), || lab.engine.helpers().is_empty());
    assert!(gone, "{:?}", lab.engine.helpers());
}
