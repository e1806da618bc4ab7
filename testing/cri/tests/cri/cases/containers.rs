//! Lives of containers.

use cri::v1::{
    ContainerFilter, ContainerState, ContainerStateValue, ContainerStatus, ImageSpec, KeyValue,
    LinuxContainerResources, ListContainersRequest,
};
use tonic::Code;

use crate::lab::Lab;
use crate::pod::{command, script};

const OBEDIENT: &str = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done";
const STUBBORN: &str = "trap '' TERM; echo ready; while :; do sleep 0.1; done";

fn ending(status: &ContainerStatus) -> (i32, &str) {
    (status.exit_code, &status.reason)
}

pub fn exit_codes(lab: &Lab) {
    let pod = lab.pod();
    for (code, reason) in [(0, "Completed"), (3, "Error"), (255, "Error")] {
        let container = pod.run(script(&format!("exit{code}"), &format!("exit {code}")));
        assert_eq!(ending(&container.wait()), (code, reason));
    }
    let killed = pod.run(script("killed", "kill -9 $$"));
    // The first process of a namespace cannot kill itself.
    assert_eq!(killed.wait().exit_code, 0);
    let aborted = pod.run(script("aborted", "sh -c 'kill -SEGV $$'; exit $?"));
    assert_eq!(ending(&aborted.wait()), (139, "Error"));
}

pub fn command_that_is_missing(lab: &Lab) {
    let pod = lab.pod();
    let container = pod
        .create(command("main", &["/nonexistent"]))
        .expect("a container");
    let refused = container.start().expect_err("no such command");
    assert!(refused.message().contains("/nonexistent"), "{refused}");
    let status = container.status().expect("a status");
    assert_eq!(status.state(), ContainerState::ContainerExited);
    assert_eq!(ending(&status), (128, "StartError"));
    assert!(status.message.contains("/nonexistent"), "{status:?}");
    container.remove().expect("a removal");
    // The pod is as good as before.
    assert_eq!(
        pod.finish(script("next", "echo fine")),
        (0, "fine\n".to_owned())
    );
}

pub fn killed_for_memory(lab: &Lab) {
    let pod = lab.pod();
    // Not at once: on a busy machine it would be over before containerd with runc looks for the event.
    let mut config = script("main", "sleep 1; tail /dev/zero");
    config.linux.get_or_insert_default().resources = Some(LinuxContainerResources {
        memory_limit_in_bytes: 32 << 20,
        memory_swap_limit_in_bytes: 32 << 20,
        ..LinuxContainerResources::default()
    });
    let container = pod.run(config);
    container.wait();
    // The event may come after the end.
    let told = harness::wait_until(std::time::Duration::from_secs(60), || {
        ending(&container.status().expect("a status")) == (137, "OOMKilled")
    });
    assert!(told, "{:?}", container.status());
}

pub fn stopped_in_time(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run(script("main", OBEDIENT));
    container.wait_for("ready");
    container.stop(100).expect("a stop");
    assert_eq!(ending(&container.status().expect("a status")), (7, "Error"));
    container.stop(1).expect("a second stop");
}

pub fn stopped_by_force(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run(script("main", STUBBORN));
    container.wait_for("ready");
    let before = std::time::Instant::now();
    container.stop(2).expect("a stop");
    assert!(before.elapsed().as_secs() >= 2, "{:?}", before.elapsed());
    assert_eq!(
        ending(&container.status().expect("a status")),
        (137, "Error")
    );
}

pub fn stopped_without_time(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run(script("main", OBEDIENT));
    container.wait_for("ready");
    container.stop(0).expect("a stop");
    assert_eq!(
        ending(&container.status().expect("a status")),
        (137, "Error")
    );
}

pub fn stop_signal_of_the_image(lab: &Lab) {
    let pod = lab.pod();
    let mut config = script(
        "main",
        "trap 'exit 9' USR1; echo ready; while :; do sleep 0.1; done",
    );
    config.image = Some(ImageSpec {
        image: lab.engine.image("configured"),
        ..ImageSpec::default()
    });
    let container = pod.run(config);
    container.wait_for("ready");
    container.stop(100).expect("a stop");
    assert_eq!(container.status().expect("a status").exit_code, 9);
}

pub fn list_and_status(lab: &Lab) {
    let pod = lab.pod();
    let running = pod.run(command("running", &["sleep", "1000"]));
    let mut config = command("made", &["sleep", "1000"]);
    config.labels.insert("which".to_owned(), "made".to_owned());
    config
        .annotations
        .insert("note".to_owned(), "kept".to_owned());
    let made = pod.create(config).expect("a container");
    let list = |filter: ContainerFilter| {
        let request = ListContainersRequest {
            filter: Some(filter),
        };
        let mut ids: Vec<_> = lab
            .runtime(async |mut calls| calls.list_containers(request).await)
            .expect("a list")
            .containers
            .into_iter()
            .map(|container| container.id)
            .collect();
        ids.sort();
        ids
    };
    let mut both = vec![running.id.clone(), made.id.clone()];
    both.sort();
    let of_pod = ContainerFilter {
        pod_sandbox_id: pod.id.clone(),
        ..ContainerFilter::default()
    };
    assert_eq!(list(of_pod.clone()), both);
    let mut with_label = of_pod.clone();
    with_label
        .label_selector
        .insert("which".to_owned(), "made".to_owned());
    assert_eq!(list(with_label), [made.id.as_str()]);
    let by_state = ContainerFilter {
        state: Some(ContainerStateValue {
            state: ContainerState::ContainerRunning.into(),
        }),
        ..of_pod
    };
    assert_eq!(list(by_state), [running.id.as_str()]);
    let status = made.status().expect("a status");
    assert_eq!(status.state(), ContainerState::ContainerCreated);
    assert_eq!(status.annotations["note"], "kept");
    assert_eq!(status.metadata.expect("a name").name, "made");
    assert_eq!(status.log_path, made.log.to_str().expect("a path"));
    running.stop(0).expect("a stop");
    let status = running.status().expect("a status");
    assert!(status.created_at > 0, "{status:?}");
    assert!(status.started_at >= status.created_at, "{status:?}");
    assert!(status.finished_at >= status.started_at, "{status:?}");
}

pub fn removed_while_running(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run(command("main", &["sleep", "1000"]));
    for _ in 0..2 {
        container.remove().expect("a removal, which may come twice");
    }
    let gone = container.status().expect_err("it is gone");
    assert_eq!(gone.code(), Code::NotFound);
}

pub fn never_started(lab: &Lab) {
    let pod = lab.pod();
    let container = pod
        .create(command("main", &["sleep", "1000"]))
        .expect("a container");
    container.remove().expect("a removal");
    assert!(container.start().is_err(), "it is gone");
}

pub fn settings_of_the_image(lab: &Lab) {
    let pod = lab.pod();
    let image = Some(ImageSpec {
        image: lab.engine.image("configured"),
        ..ImageSpec::default()
    });
    let mut config = command("whole", &[]);
    config.image = image.clone();
    assert_eq!(pod.finish(config), (0, "entry from image\n".to_owned()));
    let mut config = command("arguments", &[]);
    config.args = vec!["from".to_owned(), "kubelet".to_owned()];
    config.image = image.clone();
    assert_eq!(pod.finish(config), (0, "entry from kubelet\n".to_owned()));
    let mut config = script("rest", "id -un; pwd; echo $FROM_IMAGE");
    config.image = image;
    assert_eq!(pod.finish(config), (0, "user\n/home/user\n1\n".to_owned()));
}

pub fn environment_and_folder(lab: &Lab) {
    let pod = lab.pod();
    let mut config = script("main", "echo \"$ONE|$TWO\"; pwd");
    config.working_dir = "/var/tmp".to_owned();
    config.envs = [("ONE", "a b"), ("TWO", "c=d")]
        .map(|(key, value)| KeyValue {
            key: key.to_owned(),
            value: value.to_owned(),
        })
        .to_vec();
    assert_eq!(pod.finish(config), (0, "a b|c=d\n/var/tmp\n".to_owned()));
}

pub fn terminal(lab: &Lab) {
    let pod = lab.pod();
    let mut config = script("main", "test -t 0 && test -t 1 && test -t 2 && tty");
    config.tty = true;
    let (code, shown) = pod.finish(config);
    assert_eq!((code, shown.trim_end()), (0, "/dev/pts/0"));
}

/// Nobody attaches: nothing comes, and nothing ends.
pub fn stdin_once(lab: &Lab) {
    let pod = lab.pod();
    let mut config = script("main", "echo ready; cat; echo over");
    config.stdin = true;
    config.stdin_once = true;
    let container = pod.run(config);
    container.wait_for("ready");
    let mut without = script("without", "cat; echo over");
    without.stdin = false;
    assert_eq!(pod.finish(without), (0, "over\n".to_owned()));
    assert_eq!(container.stdout(), "ready\n");
}
