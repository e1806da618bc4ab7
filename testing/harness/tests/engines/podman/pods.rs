//! Pods: several containers in one virtual machine.

use std::time::Duration;

use harness::{VMM, is_alive, wait_until};

use super::engine::{Podman, both};
use crate::runtime::{Kind, has};

const LIMIT: Duration = Duration::from_secs(60);

/// Serves one line on the pod's loopback interface, then waits.
const SERVER: &str = "echo hello | nc -l -p 9000; while :; do sleep 0.1; done";

/// Reads it.
const CLIENT: &str = "until nc 127.0.0.1 9000 < /dev/null; do sleep 0.1; done";

const WAITING: &str = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done";

/// A pod without network; more options.
fn create(podman: &Podman, options: &[&str]) {
    podman.load_pause();
    let mut args = vec!["pod", "create", "--network", "none", "--name", "pod"];
    args.extend(options);
    podman.ok(&args);
}

/// Runs a script in a container of the pod in the background.
fn start(podman: &Podman, name: &str, script: &str) {
    podman.ok(&[
        "container",
        "run",
        "-d",
        "--pod",
        "pod",
        "--name",
        name,
        "busybox",
        "sh",
        "-c",
        script,
    ]);
}

/// What a command prints in a container.
fn inside(podman: &Podman, name: &str, script: &str) -> String {
    podman.ok(&["exec", name, "sh", "-c", script])
}

/// Which kernel a container runs on.
fn boot(podman: &Podman, name: &str) -> String {
    inside(podman, name, "cat /proc/sys/kernel/random/boot_id")
}

fn remove(podman: &Podman) {
    podman.ok(&["pod", "rm", "--force", "--time", "0", "pod"]);
}

#[test]
fn containers_share_kernel_network_ipc_and_name() {
    both(|podman| {
        create(podman, &[]);
        start(podman, "one", SERVER);
        start(podman, "two", WAITING);
        let page = podman.ok(&[
            "container",
            "run",
            "--rm",
            "--pod",
            "pod",
            "busybox",
            "sh",
            "-c",
            CLIENT,
        ]);
        let namespace =
            |name: &str, kind: &str| inside(podman, name, &format!("readlink /proc/1/ns/{kind}"));
        let shared: Vec<_> = ["net", "ipc", "uts", "pid", "mnt"]
            .map(|kind| namespace("one", kind) == namespace("two", kind))
            .into();
        inside(podman, "one", "echo from one > /dev/shm/file");
        let memory = inside(podman, "two", "cat /dev/shm/file");
        let kernel = boot(podman, "one");
        assert_eq!(kernel, boot(podman, "two"));
        let hosts = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("reads");
        assert_eq!(kernel == hosts, podman.kind == Kind::Runc);
        let names = (
            inside(podman, "one", "hostname"),
            inside(podman, "two", "hostname"),
        );
        remove(podman);
        assert_eq!(shared, [true, true, true, false, false]);
        (page, memory, names)
    });
}

#[test]
fn shared_memory_is_one_file_system_as_large_as_it_was_told_to_be() {
    both(|podman| {
        create(podman, &["--infra-name", "first"]);
        start(podman, "one", WAITING);
        start(podman, "two", WAITING);
        let look = |name: &str| {
            let kind = inside(podman, name, "stat -f -c %T /dev/shm");
            (kind, inside(podman, name, "stat -c %d /dev/shm"))
        };
        let (one, two) = (look("one"), look("two"));
        assert_eq!(one, two, "a mapping of one is a mapping of the other");
        podman.ok(&["rm", "--force", "--time", "0", "one"]);
        assert_eq!(look("two"), two);
        remove(podman);
        let fills = "dd if=/dev/zero of=/dev/shm/file bs=64k count=100 2>/dev/null; wc -c < /dev/shm/file; stat -c %a /dev/shm";
        let alone = podman.ok(&[
            "run",
            "--rm",
            "--shm-size",
            "3m",
            "busybox",
            "sh",
            "-c",
            fills,
        ]);
        (one.0, alone)
    });
}

#[test]
fn containers_share_processes_when_told_to() {
    both(|podman| {
        create(podman, &["--share", "pid,ipc,net,uts"]);
        start(podman, "one", "exec sleep 98765");
        start(podman, "two", WAITING);
        let seen = inside(podman, "two", "ps -o args | grep '^sleep 98765'");
        // The end of the container's first process, which is nobody's init, ends the container.
        inside(
            podman,
            "two",
            "kill -9 $(ps -o pid,args | grep 'sleep 98765' | grep -v grep | while read pid rest; do echo $pid; done)",
        );
        let code = podman.ok(&["wait", "one"]);
        remove(podman);
        (seen, code)
    });
}

#[test]
fn one_goes_comes_back_and_the_others_stay() {
    both(|podman| {
        create(podman, &[]);
        start(
            podman,
            "one",
            "echo line >> /kept; wc -l < /kept; trap 'exit 3' TERM; while :; do sleep 0.1; done",
        );
        start(podman, "two", WAITING);
        podman.expect_log("one", "1");
        podman.expect_log("two", "ready");
        let kernel = boot(podman, "two");
        podman.ok(&["stop", "--time", "100", "one"]);
        let code = podman.inspect("one", ".State.ExitCode");
        podman.ok(&["start", "one"]);
        podman.expect_log("one", "2");
        assert_eq!(boot(podman, "one"), kernel, "it came back into its pod");
        podman.ok(&["rm", "--force", "--time", "0", "one"]);
        start(podman, "one", "echo new; sleep 1000");
        podman.expect_log("one", "new");
        assert_eq!(boot(podman, "one"), kernel);
        let kept = podman.run(&["exec", "one", "test", "-e", "/kept"]).code;
        let logs = podman.ok(&["logs", "two"]);
        remove(podman);
        (code, kept, logs)
    });
}

#[test]
fn what_cannot_be_started_leaves_the_pod_as_it_is() {
    both(|podman| {
        create(podman, &[]);
        start(podman, "one", WAITING);
        podman.expect_log("one", "ready");
        let run = |command: &[&str]| {
            let mut args = vec!["container", "run", "--rm", "--pod", "pod", "busybox"];
            args.extend(command);
            podman.run(&args).code
        };
        let codes = (
            run(&["/no/such/command"]),
            run(&["/etc"]),
            run(&["sh", "-c", "exit 42"]),
            run(&["true"]),
        );
        assert_eq!(inside(podman, "one", "echo here"), "here\n");
        remove(podman);
        codes
    });
}

#[test]
fn a_stopped_pod_starts_again() {
    both(|podman| {
        create(podman, &[]);
        start(
            podman,
            "one",
            "echo line >> /kept; wc -l < /kept; trap 'exit 0' TERM; while :; do sleep 0.1; done",
        );
        podman.expect_log("one", "1");
        podman.ok(&["pod", "stop", "--time", "1", "pod"]);
        let stopped = podman.ok(&["pod", "inspect", "--format", "{{.State}}", "pod"]);
        podman.ok(&["pod", "start", "pod"]);
        podman.expect_log("one", "2");
        let running = podman.ok(&["pod", "inspect", "--format", "{{.State}}", "pod"]);
        remove(podman);
        (stopped, running)
    });
}

#[test]
fn a_pod_of_kubernetes_is_played() {
    both(|podman| {
        let file = podman.folder();
        std::fs::create_dir_all(&file).expect("a folder");
        let file = file.join("pod.yaml");
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: pod\nspec:\n  containers:\n  \
             - name: server\n    image: localhost/busybox\n    command: [sh, -c, {SERVER:?}]\n  \
             - name: client\n    image: localhost/busybox\n    command: [sh, -c, {:?}]\n",
            format!("{CLIENT}; echo done; sleep 1000")
        );
        std::fs::write(&file, text).expect("writes");
        let file = file.to_str().expect("text");
        podman.load_pause();
        podman.ok(&["kube", "play", "--network", "none", file]);
        podman.expect_log("pod-client", "done");
        let logs = podman.ok(&["logs", "pod-client"]);
        podman.ok(&["kube", "down", file]);
        logs
    });
}

/// Ours alone: what happens to the containers when a process behind them is killed.
#[test]
fn a_killed_machine_or_driver_ends_all_containers_of_the_pod() {
    if !has(&["podman", "conmon"]) {
        return;
    }
    for victim in ["driver", VMM, "cofferdam-fs"] {
        let Some(podman) = Podman::new(Kind::Cofferdam, "busybox") else {
            return;
        };
        create(&podman, &[]);
        start(&podman, "one", WAITING);
        start(&podman, "two", WAITING);
        podman.expect_log("two", "ready");
        let (one, two) = (podman.actors("one"), podman.actors("two"));
        assert_eq!(
            (one.driver, &one.helpers),
            (two.driver, &two.helpers),
            "one machine"
        );
        let pid = match victim {
            "driver" => one.driver,
            helper => one.helper(helper).expect("it runs"),
        };
        podman.kill9(pid);
        for name in ["one", "two"] {
            let ended = wait_until(LIMIT, || podman.inspect(name, ".State.Status") == "exited");
            assert!(ended, "{name} outlived the {victim}");
            assert_eq!(podman.inspect(name, ".State.ExitCode"), "137");
        }
        for pid in one.all().into_iter().chain(two.all()) {
            assert!(
                wait_until(LIMIT, || !is_alive(pid)),
                "{pid} outlived the {victim}"
            );
        }
        // The pod can be started again, with another machine.
        podman.ok(&["pod", "start", "pod"]);
        assert_ne!(podman.actors("one").driver, one.driver);
        assert_eq!(inside(&podman, "two", "echo here"), "here\n");
        remove(&podman);
        podman.leaves_nothing();
    }
}

/// The machine outlives its first container, as a pod's namespaces do with runc.
#[test]
fn the_first_container_goes_and_the_others_stay() {
    both(|podman| {
        create(podman, &["--infra-name", "first"]);
        start(podman, "one", WAITING);
        podman.expect_log("one", "ready");
        let kernel = boot(podman, "one");
        podman.ok(&["kill", "first"]);
        podman.ok(&["wait", "first"]);
        assert_eq!(boot(podman, "one"), kernel);
        // podman would start the first one again: nothing of a pod that is on its way out is taken up.
        podman.ok(&["stop", "--time", "100", "one"]);
        let code = podman.inspect("one", ".State.ExitCode");
        remove(podman);
        code
    });
}
