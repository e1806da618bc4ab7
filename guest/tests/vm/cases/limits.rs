//! Limits, statistics, pausing.

use std::time::Duration;

use cofferdam_protocol::{Empty, UpdateContainerRequest, event, no_deadline};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::machine;
use crate::machine::Machine;
use crate::session::{container, script, spec};

async fn stats(machine: &Machine, id: &str) -> Value {
    let stats = machine
        .agent
        .container_stats(no_deadline(), &container(id))
        .await;
    serde_json::from_slice(&stats.expect("stats").stats).expect("json")
}

#[tokio::test]
async fn running_out_of_memory_is_told() {
    let machine = machine!();
    let mut hungry = script("head -c 100m /dev/zero | tail | wc -c; echo never");
    hungry["process"]["args"] = json!(["sh", "-c", "exec tail /dev/zero"]);
    hungry["linux"]["resources"]["memory"] = json!({ "limit": 20 * 1024 * 1024 });
    let streams = machine.create("a", &hungry).await.expect("created");
    let nothing = Empty::default();
    let event = machine.agent.next_event(no_deadline(), &nothing);
    machine.start("a").await.expect("started");
    let (done, event) = tokio::join!(
        machine.finish("a", "", streams, b""),
        timeout(Duration::from_secs(60), event)
    );
    assert_eq!(
        (done.code, done.end.signal, done.end.oom_killed),
        (137, 9, true)
    );
    let event = event.expect("in time").expect("an event");
    let Some(event::Event::Oom(oom)) = event.event else {
        panic!("another event");
    };
    assert_eq!(oom.container_id, "a");
    machine.delete("a").await;

    // Killed by somebody else: not for want of memory.
    let streams = machine
        .create("b", &spec(&["sh", "-c", "kill -9 $$; sleep 1"]))
        .await;
    drop(streams.expect("created"));
}

#[tokio::test]
async fn limits_that_cannot_be_kept_are_named() {
    let machine = machine!();
    let mut tiny = spec(&["true"]);
    tiny["linux"]["resources"]["memory"] = json!({ "limit": 4096 });
    let refused = machine.create("a", &tiny).await.err().expect("no memory");
    let text = format!("{refused:?}");
    assert!(text.contains("memory limit of 4096 bytes"), "{text}");
    let mut far = spec(&["true"]);
    far["linux"]["resources"]["cpu"] = json!({ "cpus": "9" });
    let refused = machine
        .create("b", &far)
        .await
        .err()
        .expect("no processor 9");
    let text = format!("{refused:?}");
    assert!(
        text.contains("cpuset.cpus") && !text.contains("V2("),
        "{text}"
    );
}

#[tokio::test]
async fn limits_hold_and_change() {
    let machine = machine!();
    let mut limited = script(
        "cd /sys/fs/cgroup; cat memory.max memory.low pids.max cpu.max cpu.weight cpuset.cpus \
         memory.high; sleep 1000",
    );
    limited["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20, "reservation": 32 << 20 });
    limited["linux"]["resources"]["pids"] = json!({ "limit": 7 });
    limited["linux"]["resources"]["cpu"] =
        json!({ "quota": 50_000, "period": 100_000, "shares": 512, "cpus": "0" });
    limited["linux"]["resources"]["unified"] = json!({ "memory.high": "60000000" });
    let _streams = machine.create("a", &limited).await.expect("created");
    machine.start("a").await.expect("started");
    let read = "cd /sys/fs/cgroup; cat memory.max memory.low pids.max cpu.max cpu.weight cpuset.cpus memory.high";
    let process = script(read)["process"].clone();
    let done = machine.exec("a", "e1", &process).await.expect("run");
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(
        lines[..4],
        ["67108864", "33554432", "7", "50000 100000"],
        "{done:?}"
    );
    assert_eq!(lines[5..], ["0", "59998208"], "{done:?}");

    let forks = "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; wait";
    let done = machine
        .exec("a", "e2", &script(forks)["process"].clone())
        .await
        .expect("run");
    assert!(done.stderr.contains("can't fork"), "{done:?}");

    let update = UpdateContainerRequest {
        container_id: "a".to_owned(),
        resources: json!({ "memory": { "limit": 80 << 20 }, "pids": { "limit": 50 } })
            .to_string()
            .into_bytes(),
        ..UpdateContainerRequest::default()
    };
    machine
        .agent
        .update_container(no_deadline(), &update)
        .await
        .expect("updated");
    let done = machine.exec("a", "e3", &process).await.expect("run");
    assert!(
        done.stdout
            .starts_with("83886080\n33554432\n50\n50000 100000\n"),
        "{done:?}"
    );

    let stats = stats(&machine, "a").await;
    assert_eq!(stats["memory"]["usage"]["limit"], 80 << 20, "{stats}");
    assert!(
        stats["memory"]["usage"]["usage"].as_u64() > Some(0),
        "{stats}"
    );
    assert_eq!(stats["pids"]["limit"], 50, "{stats}");
    assert!(stats["pids"]["current"].as_u64() >= Some(1), "{stats}");
    assert!(stats["cpu"]["usage"]["total"].as_u64() > Some(0), "{stats}");

    let list = machine
        .agent
        .list_processes(no_deadline(), &container("a"))
        .await
        .expect("list");
    let found = list
        .processes
        .iter()
        .find(|process| process.command == "sleep 1000");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("now");
    let started = found.expect("the sleeper").started;
    // The test did not set the guest's clock; the host's hardware clock is good enough.
    assert!(
        now.as_secs().abs_diff(started.unsigned_abs()) < 120,
        "{started}"
    );
}

#[tokio::test]
async fn a_paused_container_stands_still() {
    let machine = machine!();
    let busy = script("while :; do :; done");
    let _streams = machine.create("a", &busy).await.expect("created");
    let request = container("a");
    assert!(
        machine
            .agent
            .pause_container(no_deadline(), &request)
            .await
            .is_err()
    );
    machine.start("a").await.expect("started");
    machine
        .agent
        .pause_container(no_deadline(), &request)
        .await
        .expect("paused");
    assert!(
        machine
            .agent
            .pause_container(no_deadline(), &request)
            .await
            .is_err()
    );
    let before = stats(&machine, "a").await["cpu"]["usage"]["total"].as_u64();
    sleep(Duration::from_millis(300)).await;
    assert_eq!(
        stats(&machine, "a").await["cpu"]["usage"]["total"].as_u64(),
        before
    );
    machine
        .agent
        .resume_container(no_deadline(), &request)
        .await
        .expect("resumed");
    sleep(Duration::from_millis(300)).await;
    assert!(stats(&machine, "a").await["cpu"]["usage"]["total"].as_u64() > before);
    machine
        .agent
        .pause_container(no_deadline(), &request)
        .await
        .expect("paused");
    machine.delete("a").await;
}
