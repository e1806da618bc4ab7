//! Lives of pods.

use std::fs;

use cri::v1::{
    ContainerState, ListPodSandboxRequest, Mount, PodSandboxFilter, PodSandboxState,
    PodSandboxStateValue,
};
use tonic::Code;

use crate::lab::Lab;
use crate::pod::{Container, Pod, command, script};

/// Ends within a moment when it is asked to.
const OBEDIENT: &str = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done";

pub fn status_and_list(lab: &Lab) {
    let pod = lab.pod();
    let status = pod.status().expect("a status");
    assert_eq!(status.id, pod.id);
    assert_eq!(status.metadata, pod.config.metadata);
    assert_eq!(status.labels, pod.config.labels);
    assert_eq!(status.annotations, pod.config.annotations);
    assert_eq!(status.runtime_handler, lab.handler.name());
    assert_eq!(status.state(), PodSandboxState::SandboxReady);
    assert!(status.created_at > 0);
    assert!(pod.ip().starts_with("10.133."), "{}", pod.ip());
    let with = |state: PodSandboxState| {
        let request = ListPodSandboxRequest {
            filter: Some(PodSandboxFilter {
                id: pod.id[..12].to_owned(),
                state: Some(PodSandboxStateValue {
                    state: state.into(),
                }),
                label_selector: lab.labels(),
            }),
        };
        lab.runtime(async |mut calls| calls.list_pod_sandbox(request).await)
            .expect("a list")
            .items
            .len()
    };
    assert_eq!(with(PodSandboxState::SandboxReady), 1);
    assert_eq!(with(PodSandboxState::SandboxNotready), 0);
    pod.stop().expect("a stop");
    assert_eq!(with(PodSandboxState::SandboxReady), 0);
    assert_eq!(with(PodSandboxState::SandboxNotready), 1);
}

pub fn without_containers(lab: &Lab) {
    let pod = lab.pod();
    let state = || pod.status().expect("a status").state();
    assert_eq!(state(), PodSandboxState::SandboxReady);
    pod.stop().expect("a stop");
    assert_eq!(state(), PodSandboxState::SandboxNotready);
    pod.remove().expect("a removal");
}

/// Kubelet repeats itself.
pub fn stopped_and_removed_twice(lab: &Lab) {
    let pod = lab.pod();
    for _ in 0..2 {
        pod.stop().expect("a stop");
    }
    // Since 2.0 it may be made, but not started.
    let late = pod.create(command("late", &["true"]));
    let started = late.and_then(|container| container.start());
    assert!(started.is_err(), "a container in a pod that was stopped");
    for _ in 0..2 {
        pod.remove().expect("a removal");
    }
    let gone = pod.status().expect_err("it is gone");
    assert_eq!(gone.code(), Code::NotFound, "{gone}");
}

pub fn stopped_with_running_containers(lab: &Lab) {
    let pod = lab.pod();
    let containers = ["one", "two"].map(|name| pod.run(command(name, &["sleep", "1000"])));
    pod.stop().expect("a stop");
    for container in &containers {
        let status = container.status().expect("a status");
        assert_eq!(status.state(), ContainerState::ContainerExited);
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    }
    let state = pod.status().expect("a status").state();
    assert_eq!(state, PodSandboxState::SandboxNotready);
}

pub fn removed_while_running(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run(command("main", &["sleep", "1000"]));
    pod.remove().expect("a removal");
    assert_eq!(
        pod.status().map_err(|error| error.code()),
        Err(Code::NotFound)
    );
    let gone = container.status().expect_err("it is gone");
    assert_eq!(gone.code(), Code::NotFound);
}

/// What the first one prepares, the second one uses.
pub fn init_then_main(lab: &Lab) {
    let shared = lab.folder().join("shared");
    fs::create_dir(&shared).expect("a folder");
    let pod = lab.pod();
    let mount = Mount {
        container_path: "/shared".to_owned(),
        host_path: shared.to_str().expect("a path that is text").to_owned(),
        ..Mount::default()
    };
    let mut init = script(
        "init",
        "echo prepared > /shared/file; ls /only-here 2>/dev/null; touch /only-here",
    );
    init.mounts = vec![mount.clone()];
    let init = pod.run(init);
    let status = init.wait();
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
    let mut main = script(
        "main",
        "cat /shared/file; ls /only-here 2>/dev/null; echo done",
    );
    main.mounts = vec![mount];
    assert_eq!(pod.finish(main), (0, "prepared\ndone\n".to_owned()));
    let state = pod.status().expect("a status").state();
    assert_eq!(state, PodSandboxState::SandboxReady);
}

/// What kubelet does to one that crashed.
pub fn restarted_container(lab: &Lab) {
    let pod = lab.pod();
    let ip = pod.ip();
    let beside = pod.run(command("beside", &["sleep", "1000"]));
    for attempt in 0..3 {
        let mut config = script("main", "echo try; exit 3");
        config.metadata.get_or_insert_default().attempt = attempt;
        config.log_path = format!("main.{attempt}.log");
        let container = pod.run(config);
        let status = container.wait();
        assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
        assert_eq!(container.stdout(), "try\n");
        assert_eq!(status.metadata.unwrap_or_default().attempt, attempt);
        container.remove().expect("a removal");
    }
    assert_eq!(pod.ip(), ip);
    let status = beside.status().expect("a status");
    assert_eq!(status.state(), ContainerState::ContainerRunning);
}

pub fn container_added_later(lab: &Lab) {
    let pod = lab.pod();
    let first = pod.run(script("first", OBEDIENT));
    first.wait_for("ready");
    let mut second = script("second", "wget -q -O - http://127.0.0.1:8080/late");
    second.log_path = "second.log".to_owned();
    let files = "mkdir -p /www; echo served > /www/late; httpd -p 127.0.0.1:8080 -h /www";
    assert_eq!(first.exec(files).0, 0);
    assert_eq!(pod.finish(second), (0, "served\n".to_owned()));
    first.stop(60).expect("a stop");
    assert_eq!(first.wait().exit_code, 7);
}

pub fn in_parallel(lab: &Lab) {
    let one = |number: usize| {
        let name = format!("pod{number}");
        let pod = lab.run(lab.pod_config(&name));
        let done = pod.finish(script("main", "hostname"));
        assert_eq!(done, (0, format!("{name}\n")));
        pod.ip()
    };
    let mut addresses: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|number| scope.spawn(move || one(number)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a pod"))
            .collect()
    });
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 3, "{addresses:?}");
}

pub fn many_containers(lab: &Lab) {
    let pod = lab.pod();
    let running: Vec<_> = (0..6)
        .map(|number| {
            pod.run(script(
                &format!("c{number}"),
                &format!("echo {number}; {OBEDIENT}"),
            ))
        })
        .collect();
    for (number, container) in running.iter().enumerate() {
        container.wait_for("ready");
        assert_eq!(container.stdout(), format!("{number}\nready\n"));
    }
    ends_alone(&pod, &running);
}

/// The end of one is none of the others' business.
fn ends_alone(pod: &Pod, running: &[Container]) {
    running[2].stop(60).expect("a stop");
    assert_eq!(running[2].wait().exit_code, 7);
    for (number, container) in running.iter().enumerate() {
        let is_running =
            container.status().expect("a status").state() == ContainerState::ContainerRunning;
        assert_eq!(is_running, number != 2, "container {number}");
    }
    let state = pod.status().expect("a status").state();
    assert_eq!(state, PodSandboxState::SandboxReady);
}

/// Containers of a pod have one kernel, each has files of its own; with ours the kernel is not the node's.
pub fn one_kernel(lab: &Lab) {
    let pod = lab.pod();
    let [one, two] = ["one", "two"].map(|name| pod.run(command(name, &["sleep", "1000"])));
    let boot = "/proc/sys/kernel/random/boot_id";
    let look = format!("cat {boot}");
    let (_, kernel) = one.exec(&look);
    assert_eq!(two.exec(&look).1, kernel);
    let node = fs::read_to_string(boot).expect("a kernel");
    assert_eq!(kernel == node, !lab.is_machine());
    assert_eq!(
        one.exec("touch /tmp/mine; ls /tmp"),
        (0, "mine\n".to_owned())
    );
    assert_eq!(two.exec("ls /tmp"), (0, String::new()));
}
