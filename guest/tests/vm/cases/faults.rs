//! Wrong requests, signals, ends.

use std::time::{Duration, Instant};

use cofferdam_protocol::{
    ConfigureSandboxRequest, ContainerRequest, HelloRequest, SignalProcessRequest, no_deadline,
    ttrpc,
};
use serde_json::json;
use ttrpc::Code;

use super::machine;
use crate::machine::Machine;
use crate::session::{container, process, script, spec};

fn code<T: std::fmt::Debug>(answer: ttrpc::Result<T>) -> Code {
    match answer {
        Err(ttrpc::Error::RpcStatus(status)) => status.code(),
        other => panic!("not refused: {other:?}"),
    }
}

async fn signal(
    machine: &Machine,
    id: &str,
    exec: &str,
    signal: u32,
    all: bool,
) -> ttrpc::Result<()> {
    let request = SignalProcessRequest {
        container_id: id.to_owned(),
        exec_id: exec.to_owned(),
        signal,
        all,
        ..SignalProcessRequest::default()
    };
    machine
        .agent
        .signal_process(no_deadline(), &request)
        .await
        .map(drop)
}

#[tokio::test]
async fn wrong_requests_are_refused() {
    let machine = machine!();
    let agent = &machine.agent;
    let hello = HelloRequest {
        version: 0,
        ..HelloRequest::default()
    };
    assert_eq!(
        code(agent.hello(no_deadline(), &hello).await),
        Code::FAILED_PRECONDITION
    );
    let unknown: ContainerRequest = container("none");
    assert_eq!(
        code(agent.start_container(no_deadline(), &unknown).await),
        Code::NOT_FOUND
    );
    assert_eq!(
        code(agent.delete_container(no_deadline(), &unknown).await),
        Code::NOT_FOUND
    );
    assert_eq!(
        code(agent.container_stats(no_deadline(), &unknown).await),
        Code::NOT_FOUND
    );
    assert_eq!(
        code(
            agent
                .wait_process(no_deadline(), &process("none", ""))
                .await
        ),
        Code::NOT_FOUND
    );
    assert_eq!(
        code(signal(&machine, "none", "", 9, false).await),
        Code::NOT_FOUND
    );

    let good = spec(&["sleep", "100"]);
    let _streams = machine.create("a", &good).await.expect("created");
    assert_eq!(
        code(machine.try_create("a", &good).await.map(|_| ())),
        Code::ALREADY_EXISTS
    );
    for id in ["", ".", "..", "a/b", "a b", &"x".repeat(300)] {
        assert_eq!(
            code(machine.try_create(id, &good).await.map(|_| ())),
            Code::INVALID_ARGUMENT
        );
    }
    for (pointer, value, named) in [
        ("/process/args", json!([]), "process.args"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/process/args", json!(7), "spec"),
        ("/root/path", json!("/no/such/folder"), "root.path"),
        (
            "/linux/namespaces/0/path",
            json!("/proc/1/ns/pid"),
            "linux.namespaces",
        ),
        (
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }] }),
            "SCMP_ACT_NOTIFY",
        ),
        (
            "/linux/intelRdt",
            json!({ "closID": "x" }),
            "linux.intelRdt",
        ),
        ("/process/selinuxLabel", json!("system_u:x"), "selinuxLabel"),
    ] {
        let mut bad = good.clone();
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        bad.pointer_mut(parent).expect("there")[key] = value;
        let refused = machine
            .try_create("b", &bad)
            .await
            .map(|_| ())
            .expect_err(pointer);
        assert!(refused.to_string().contains(named), "{pointer}: {refused}");
        assert_eq!(code(Err::<(), _>(refused)), Code::INVALID_ARGUMENT);
    }
    machine.start("a").await.expect("started");
    assert_eq!(
        code(agent.start_container(no_deadline(), &container("a")).await),
        Code::FAILED_PRECONDITION
    );
    assert_eq!(
        code(signal(&machine, "a", "none", 9, false).await),
        Code::NOT_FOUND
    );
    assert_eq!(
        code(signal(&machine, "a", "", 0, false).await),
        Code::INVALID_ARGUMENT
    );
    assert_eq!(
        code(signal(&machine, "a", "", 65, false).await),
        Code::INVALID_ARGUMENT
    );
    assert_eq!(
        code(agent.delete_process(no_deadline(), &process("a", "")).await),
        Code::FAILED_PRECONDITION
    );
    let mut missing = good["process"].clone();
    missing["cwd"] = json!("/not/there");
    let failure = machine
        .exec("a", "e", &missing)
        .await
        .expect_err("a failure");
    assert_eq!(
        failure.message,
        "chdir to cwd (\"/not/there\") set in config.json failed: no such file or directory"
    );
    signal(&machine, "a", "", 9, false).await.expect("killed");
    let end = machine.wait("a", "").await;
    assert_eq!(
        (end.exit_status, end.signal, end.oom_killed),
        (137, 9, false)
    );
    assert_eq!(
        code(signal(&machine, "a", "", 9, false).await),
        Code::FAILED_PRECONDITION
    );
    let process = spec(&["true"])["process"].clone();
    let request = cofferdam_protocol::ExecProcessRequest {
        container_id: "a".to_owned(),
        exec_id: "late".to_owned(),
        process: process.to_string().into_bytes(),
        ..Default::default()
    };
    assert_eq!(
        code(agent.exec_process(no_deadline(), &request).await),
        Code::FAILED_PRECONDITION
    );
    machine.delete("a").await;
    let _streams = machine
        .create("a", &good)
        .await
        .expect("the name is free again");
}

#[tokio::test]
async fn signals_reach_those_they_are_for() {
    let machine = machine!();
    let trap = "trap 'echo term; exit 7' TERM; trap 'echo rt' RTMIN; echo ready; while :; do sleep 0.05; done";
    let streams = machine.create("a", &script(trap)).await.expect("created");
    machine.start("a").await.expect("started");
    let process = script(trap)["process"].clone();
    let exec = machine.exec_start("a", "e", &process).await.expect("run");
    tokio::time::sleep(Duration::from_secs(1)).await;
    signal(&machine, "a", "e", 15, false).await.expect("sent");
    let done = machine.finish("a", "e", exec, b"").await;
    assert_eq!((done.code, done.stdout.as_str()), (7, "ready\nterm\n"));
    signal(&machine, "a", "", 15, true).await.expect("sent");
    let done = machine.finish("a", "", streams, b"").await;
    assert_eq!((done.code, done.stdout.as_str()), (7, "ready\nterm\n"));
    machine.delete("a").await;

    // The end of the first process is the end of all.
    let streams = machine
        .create("b", &spec(&["sleep", "100"]))
        .await
        .expect("created");
    machine.start("b").await.expect("started");
    let exec = machine
        .exec_start("b", "e", &spec(&["sleep", "100"])["process"])
        .await
        .expect("run");
    signal(&machine, "b", "", 9, false).await.expect("sent");
    let done = machine.finish("b", "e", exec, b"").await;
    assert_eq!((done.code, done.end.signal), (137, 9));
    drop(streams);
    let start = Instant::now();
    machine.delete("b").await;
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_running_container_can_be_deleted_whole() {
    let machine = machine!();
    let crowd = "for i in 1 2 3 4 5; do (sleep 100 &) ; done; sleep 100";
    for id in ["a", "b", "c"] {
        let mut spec = script(crowd);
        if id == "c" {
            // Without a namespace for its processes they outlive the first one.
            spec["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "uts" }]);
        }
        let _streams = machine.create(id, &spec).await.expect("created");
        if id != "b" {
            machine.start(id).await.expect("started");
        }
        machine.delete(id).await;
    }
    let mut look = script("ps | grep -c '[s]leep 100'; ls -d /sys/fs/cgroup/c*/ | wc -l");
    look["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "uts" }]);
    let done = machine.run("look", &look).await.expect("run");
    // One cgroup: that of the container that looks.
    assert_eq!(done.stdout, "0\n1\n", "{done:?}");
}

fn identity() -> ConfigureSandboxRequest {
    ConfigureSandboxRequest {
        id: "s1".to_owned(),
        hostname: "pod".to_owned(),
        realtime_ns: 1_900_000_000_000_000_000,
        entropy: vec![7; 64],
        ..ConfigureSandboxRequest::default()
    }
}

#[tokio::test]
async fn a_sandbox_gets_its_identity_once() {
    let machine = machine!();
    machine
        .agent
        .configure_sandbox(no_deadline(), &identity())
        .await
        .expect("configured");
    let again = machine
        .agent
        .configure_sandbox(no_deadline(), &identity())
        .await;
    assert_eq!(code(again), Code::FAILED_PRECONDITION);
    let mut look = script("date -u +%Y; hostname; cat /sys/class/net/lo/flags");
    look["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "pid" }]);
    look.as_object_mut().expect("spec").remove("hostname");
    let done = machine.run("a", &look).await.expect("run");
    assert_eq!(done.stdout, "2030\npod\n0x9\n", "{done:?}");
}

#[tokio::test]
async fn a_host_that_goes_ends_the_guest() {
    let mut machine = machine!();
    machine
        .agent
        .configure_sandbox(no_deadline(), &identity())
        .await
        .expect("configured");
    machine.unplug();
    assert!(
        machine.ends(Duration::from_secs(20)).await,
        "the machine ends"
    );
    assert!(
        machine.console().contains("cofferdam-init: the agent"),
        "{}",
        machine.console()
    );
}
