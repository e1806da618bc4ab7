//! Killed processes. Each case has an engine of its own.

use std::time::Duration;

use cri::v1::{ContainerState, PodSandboxState};
use harness::wait_until;
use rustix::process::{Pid, Signal, kill_process};

use crate::lab::Lab;
use crate::pod::{command, script};

/// Pods and their output outlive the engine, and what ends meanwhile is known afterwards.
pub fn engine_killed(lab: &Lab) {
    let pod = lab.pod();
    let talks = pod.run(script(
        "talks",
        "i=0; while :; do i=$((i + 1)); echo $i; sleep 0.2; done",
    ));
    let ends = pod.run(script("ends", "while ! test -e /dev/shm/go; do sleep 0.1; done; exit 5"));
    talks.wait_for(" F 2\n");
    assert_eq!(talks.exec("touch /dev/shm/go").0, 0);
    lab.engine.kill_and_restart();
    let state = pod.status().expect("a status").state();
    assert_eq!(state, PodSandboxState::SandboxReady);
    let status = talks.status().expect("a status");
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    assert_eq!(ends.wait().exit_code, 5);
    let before = talks.stdout().lines().count();
    let goes_on = wait_until(Duration::from_secs(60), || {
        talks.stdout().lines().count() > before + 3
    });
    assert!(goes_on, "nothing comes any more: {}", talks.stdout());
    assert_eq!(talks.exec("echo fine"), (0, "fine\n".to_owned()));
    assert_eq!(pod.finish(script("next", "echo new")), (0, "new\n".to_owned()));
    pod.stop().expect("a stop");
    pod.remove().expect("a removal");
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
