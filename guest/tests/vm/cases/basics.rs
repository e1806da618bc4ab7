//! Booting, the life of a container, commands that cannot run.

use std::time::{Duration, Instant};

use cofferdam_protocol::{Empty, no_deadline, start_failure};
use serde_json::json;

use super::machine;
use crate::machine::Machine;
use crate::session::spec;

#[test]
fn a_probe_says_so_and_ends() {
    let Some((console, took)) = Machine::probe() else {
        return;
    };
    assert!(console.contains("cofferdam-probe-ok"), "{console}");
    println!("probe: {took:?}");
}

#[tokio::test]
async fn runs_a_container_and_times_it() {
    let mut machine = machine!();
    println!(
        "answered: {:?}, cpu {:?}, init entered at {} us",
        machine.answered,
        machine.cpu(),
        machine.entered_ns / 1000
    );
    for round in 0..5 {
        let id = format!("t{round}");
        let (start, cpu) = (Instant::now(), machine.cpu());
        let mut times = Vec::new();
        let mut mark = |what| times.push((what, start.elapsed(), machine.cpu() - cpu));
        let streams = machine
            .create(&id, &spec(&["true"]))
            .await
            .expect("created");
        mark("created");
        machine.start(&id).await.expect("started");
        mark("started");
        let done = machine.finish(&id, "", streams, b"").await;
        mark("ended");
        machine.delete(&id).await;
        mark("deleted");
        println!("{times:?}");
        assert_eq!(done.code, 0);
    }
    let streams = machine
        .create("long", &spec(&["sleep", "100"]))
        .await
        .expect("created");
    machine.start("long").await.expect("started");
    for round in 0..5 {
        let process = spec(&["echo", "hello"])["process"].clone();
        let (start, cpu) = (Instant::now(), machine.cpu());
        let done = machine
            .exec("long", &format!("e{round}"), &process)
            .await
            .expect("run");
        println!("exec {:?}, cpu {:?}", start.elapsed(), machine.cpu() - cpu);
        assert_eq!(done.stdout, "hello\n");
    }
    drop(streams);
    machine
        .agent
        .shutdown(no_deadline(), &Empty::default())
        .await
        .expect("shut down");
    assert!(
        machine.ends(Duration::from_secs(5)).await,
        "the machine ends"
    );
}

#[tokio::test]
async fn says_why_a_command_cannot_run() {
    let machine = machine!();
    use start_failure::Kind;
    let cases = [
        (
            "foo",
            Kind::COMMAND_NOT_FOUND,
            "exec: \"foo\": executable file not found in $PATH",
        ),
        (
            "/x",
            Kind::COMMAND_NOT_FOUND,
            "exec: \"/x\": stat /x: no such file or directory",
        ),
        (
            "/bin/plain",
            Kind::COMMAND_NOT_EXECUTABLE,
            "exec: \"/bin/plain\": permission denied",
        ),
        (
            "/bin",
            Kind::COMMAND_NOT_EXECUTABLE,
            "exec: \"/bin\": is a directory",
        ),
    ];
    let _streams = machine
        .create("long", &spec(&["sleep", "100"]))
        .await
        .expect("created");
    machine.start("long").await.expect("started");
    for (command, kind, message) in cases {
        let failure = machine
            .create("c", &spec(&[command]))
            .await
            .err()
            .expect("a failure");
        assert_eq!(failure.message, message);
        assert_eq!(failure.kind.enum_value(), Ok(kind));
        let process = spec(&[command])["process"].clone();
        let failure = machine
            .exec("long", "e", &process)
            .await
            .expect_err("a failure");
        assert_eq!(failure.message, message);
        assert_eq!(failure.kind.enum_value(), Ok(kind));
    }
    let failure = machine
        .run("g", &spec(&["garbage"]))
        .await
        .expect_err("a failure");
    assert_eq!(failure.message, "exec: \"garbage\": exec format error");
    let mut bad = spec(&["true"]);
    bad["process"]["cwd"] = json!("/etc/passwd");
    let failure = machine.create("c", &bad).await.err().expect("a failure");
    assert!(failure.message.contains("ENOTDIR"), "{}", failure.message);
    assert!(!failure.message.contains('\n'));
}
