//! Bytes in and out.

use std::time::{Duration, Instant};

use cofferdam_protocol::{ResizePtyRequest, no_deadline};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::machine;
use crate::session::{Streams, script, spec};

#[tokio::test]
async fn everything_arrives_and_stays_apart() {
    let machine = machine!();
    let done = machine
        .run("a", &script("echo out; echo err >&2; exit 3"))
        .await
        .expect("run");
    assert_eq!(
        (done.code, done.stdout.as_str(), done.stderr.as_str()),
        (3, "out\n", "err\n")
    );

    // 32 MiB through cat, more than all buffers together.
    let input: Vec<u8> = (0..8 * 1024 * 1024u32).flat_map(u32::to_be_bytes).collect();
    let streams = machine.create("b", &spec(&["cat"])).await.expect("created");
    machine.start("b").await.expect("started");
    let Streams {
        mut stdin,
        stdout,
        stderr,
    } = streams;
    let (mut stdout, mut stderr) = (stdout.expect("stdout"), stderr.expect("stderr"));
    let start = Instant::now();
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let moved = async {
        tokio::join!(
            async {
                stdin.write_all(&input).await.expect("write");
                stdin.shutdown().await.expect("shutdown");
            },
            async { stdout.read_to_end(&mut output).await.expect("read") },
            async { stderr.read_to_end(&mut errors).await.expect("read") },
            machine.wait("b", ""),
        )
    };
    let (.., end) = timeout(Duration::from_secs(120), moved)
        .await
        .expect("in time");
    println!("32 MiB through cat: {:?}", start.elapsed());
    assert!(
        output == input,
        "{} of {} bytes, or others",
        output.len(),
        input.len()
    );
    assert!(errors.is_empty());
    assert_eq!((end.exit_status, end.stdout_bytes), (0, input.len() as u64));
    machine.delete("b").await;
}

#[tokio::test]
async fn a_process_has_no_more_than_it_was_given() {
    let machine = machine!();
    let list = "ls -l /proc/self/fd | wc -l; readlink /proc/self/fd/0 2>/dev/null; true";
    let streams = machine
        .create("a", &spec(&["sleep", "100"]))
        .await
        .expect("created");
    machine.start("a").await.expect("started");
    let process = script(list)["process"].clone();
    let done = machine.exec("a", "e", &process).await.expect("run");
    // "total 0", 0, 1, 2 and the folder that ls itself reads.
    assert_eq!(
        done.stdout.lines().next().map(str::trim),
        Some("5"),
        "{}",
        done.stdout
    );
    let done = machine.run("b", &script(list)).await.expect("run");
    assert_eq!(
        done.stdout.lines().next().map(str::trim),
        Some("5"),
        "{}",
        done.stdout
    );
    drop(streams);
}

#[tokio::test]
async fn a_child_in_the_background_delays_no_end() {
    let machine = machine!();
    let streams = machine
        .create("a", &spec(&["sleep", "100"]))
        .await
        .expect("created");
    machine.start("a").await.expect("started");
    for terminal in [false, true] {
        let mut process = script("trap '' HUP; echo begin; sleep 50 & echo end")["process"].clone();
        process["terminal"] = json!(terminal);
        let name = format!("e{terminal}");
        let streams = machine.exec_start("a", &name, &process).await.expect("run");
        let start = Instant::now();
        let end = machine.wait("a", &name).await;
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{:?}",
            start.elapsed()
        );
        let expected = if terminal {
            "begin\r\nend\r\n"
        } else {
            "begin\nend\n"
        };
        assert_eq!(end.stdout_bytes, expected.len() as u64);
        let mut stream = streams.stdout.unwrap_or(streams.stdin);
        let mut bytes = vec![0; expected.len()];
        stream.read_exact(&mut bytes).await.expect("all of it");
        assert_eq!(bytes, expected.as_bytes());
    }
    drop(streams);
}

#[tokio::test]
async fn hundreds_of_short_processes_lose_nothing() {
    let machine = machine!();
    let _streams = machine
        .create("a", &spec(&["sleep", "1000"]))
        .await
        .expect("created");
    machine.start("a").await.expect("started");
    let start = Instant::now();
    for round in 0..200u32 {
        let text = format!("round {round}\n");
        let process = spec(&["echo", text.trim_end()])["process"].clone();
        let done = machine
            .exec("a", &format!("e{round}"), &process)
            .await
            .expect("run");
        assert_eq!((done.code, done.stdout), (0, text));
    }
    println!("200 execs: {:?}", start.elapsed());
    // And beside each other.
    let run = |round: u32| {
        let machine = &machine;
        async move {
            let process = script(&format!("echo {round}; exit {}", round % 100))["process"].clone();
            let done = machine
                .exec("a", &format!("p{round}"), &process)
                .await
                .expect("run");
            assert_eq!(
                (done.code, done.stdout),
                (round % 100, format!("{round}\n"))
            );
        }
    };
    for base in [0, 8, 16] {
        let base = base * 8;
        tokio::join!(
            run(base),
            run(base + 1),
            run(base + 2),
            run(base + 3),
            run(base + 4),
            run(base + 5),
            run(base + 6),
            run(base + 7),
        );
    }
}

#[tokio::test]
async fn a_terminal_is_one() {
    let machine = machine!();
    let commands = "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo yes; \
                    ls -l /dev/console | head -c 1; echo; \
                    trap 'stty size; exit 5' WINCH; read line; echo \"<$line>\"; \
                    while :; do sleep 0.05; done";
    let mut with_terminal = script(commands);
    with_terminal["process"]["terminal"] = json!(true);
    with_terminal["process"]["consoleSize"] = json!({ "height": 33, "width": 99 });
    let main = machine.create("a", &with_terminal).await.expect("created");
    machine.start("a").await.expect("started");
    let process = with_terminal["process"].clone();
    let exec = machine.exec_start("a", "e", &process).await.expect("run");
    for (name, streams) in [("e", exec), ("", main)] {
        let mut terminal = streams.stdin;
        terminal.write_all(b"hello\n").await.expect("typed");
        let mut text = String::new();
        let mut bytes = [0; 1024];
        while !text.contains("<hello>") {
            let read = timeout(Duration::from_secs(20), terminal.read(&mut bytes)).await;
            let read = read.unwrap_or_else(|_| panic!("{text:?}")).expect("output");
            text.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
        assert!(text.contains("/dev/pts/"), "{text}");
        assert!(text.contains("33 99"), "{text}");
        assert!(text.contains("yes"), "{text}");
        let size = ResizePtyRequest {
            container_id: "a".to_owned(),
            exec_id: name.to_owned(),
            rows: 20,
            columns: 60,
            ..ResizePtyRequest::default()
        };
        machine
            .agent
            .resize_pty(no_deadline(), &size)
            .await
            .expect("resized");
        let mut rest = Vec::new();
        let (end, read) = tokio::join!(machine.wait("a", name), terminal.read_to_end(&mut rest));
        read.expect("an end");
        assert_eq!(end.exit_status, 5);
        assert!(String::from_utf8_lossy(&rest).contains("20 60"), "{rest:?}");
    }
}

#[tokio::test]
async fn a_user_may_open_its_own_stdout() {
    let machine = machine!();
    let mut spec = script("echo one > /dev/stdout; echo two > /proc/self/fd/2");
    spec["process"]["user"] = json!({ "uid": 33, "gid": 33 });
    let done = machine.run("a", &spec).await.expect("run");
    assert_eq!(
        (done.stdout.as_str(), done.stderr.as_str()),
        ("one\n", "two\n")
    );
    spec["process"]["terminal"] = json!(true);
    let streams = machine.create("b", &spec).await.expect("created");
    machine.start("b").await.expect("started");
    let mut terminal = streams.stdin;
    let mut text = String::new();
    terminal.read_to_string(&mut text).await.expect("read");
    assert_eq!(text, "one\r\ntwo\r\n");
}
