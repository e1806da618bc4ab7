//! What is behind `kubectl exec`, `attach` and `port-forward`.

use cri::Stream;
use cri::v1::{AttachRequest, ExecRequest, PortForwardRequest};
use serde_json::Value;

use crate::lab::Lab;
use crate::pod::{Container, command, script};

/// Channels of a forwarded port: its bytes. The next one has errors.
const BYTES: u8 = 0;

struct Wanted {
    stdin: bool,
    tty: bool,
}

fn exec(lab: &Lab, container: &Container, script: &str, wanted: &Wanted) -> Stream {
    let request = ExecRequest {
        container_id: container.id.clone(),
        cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
        tty: wanted.tty,
        stdin: wanted.stdin,
        stdout: true,
        // A terminal has one output.
        stderr: !wanted.tty,
    };
    let url = lab
        .runtime(async |mut calls| calls.exec(request).await)
        .expect("an address")
        .url;
    Stream::open(&url).expect("a stream")
}

/// How a command has ended, as the stream tells.
fn exit_code(stream: &mut Stream) -> i32 {
    stream.finish().expect("an end");
    let told = stream.received(Stream::RESULT);
    let told: Value = serde_json::from_slice(told)
        .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(told)));
    if told["status"] == "Success" {
        return 0;
    }
    let causes = told["details"]["causes"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let code = causes.iter().find(|cause| cause["reason"] == "ExitCode");
    let code = code.and_then(|cause| cause["message"].as_str()?.parse().ok());
    code.unwrap_or_else(|| panic!("no exit code: {told}"))
}

pub fn exec_with_output(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run(command("main", &["sleep", "1000"]));
    let wanted = Wanted {
        stdin: false,
        tty: false,
    };
    let mut stream = exec(lab, &container, "echo out; echo err >&2; exit 6", &wanted);
    assert_eq!(exit_code(&mut stream), 6);
    assert_eq!(stream.received(Stream::STDOUT), b"out\n");
    assert_eq!(stream.received(Stream::STDERR), b"err\n");
    let mut stream = exec(lab, &container, "head -c 1000000 /dev/zero", &wanted);
    assert_eq!(exit_code(&mut stream), 0);
    assert_eq!(stream.received(Stream::STDOUT).len(), 1_000_000);
}

pub fn exec_with_stdin(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run(command("main", &["sleep", "1000"]));
    let wanted = Wanted {
        stdin: true,
        tty: false,
    };
    let mut stream = exec(lab, &container, "read a; echo \"<$a>\"; head -c 5", &wanted);
    stream.send(Stream::STDIN, b"a line\n").expect("sent");
    stream
        .expect(Stream::STDOUT, "<a line>\n")
        .expect("an echo");
    stream.send(Stream::STDIN, b"12345").expect("sent");
    assert_eq!(exit_code(&mut stream), 0);
    assert_eq!(stream.received(Stream::STDOUT), b"<a line>\n12345");
}

pub fn exec_with_a_terminal(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run(command("main", &["sleep", "1000"]));
    let wanted = Wanted {
        stdin: true,
        tty: true,
    };
    let ask = "tty; while read line; do case $line in size) stty size;; end) exit 4;; esac; done";
    let mut stream = exec(lab, &container, ask, &wanted);
    stream
        .expect(Stream::STDOUT, "/dev/pts/")
        .expect("a terminal");
    let mut sized = String::new();
    // Sizes travel apart from what is typed.
    for _ in 0..50 {
        stream
            .send(Stream::SIZE, br#"{"Width":91,"Height":37}"#)
            .expect("sent");
        stream.send(Stream::STDIN, b"size\n").expect("sent");
        let seen = sized.matches('\n').count();
        loop {
            sized = stream
                .expect(Stream::STDOUT, "size\r\n")
                .expect("an answer");
            if sized.matches('\n').count() >= seen + 2 || sized.contains("37 91") {
                break;
            }
            stream.wait().expect("more");
        }
        if sized.contains("37 91") {
            break;
        }
    }
    assert!(sized.contains("37 91"), "{sized}");
    stream.send(Stream::STDIN, b"end\n").expect("sent");
    assert_eq!(exit_code(&mut stream), 4);
}

fn attach(lab: &Lab, container: &Container, stdin: bool) -> Stream {
    let request = AttachRequest {
        container_id: container.id.clone(),
        stdin,
        tty: false,
        stdout: true,
        stderr: true,
    };
    let url = lab
        .runtime(async |mut calls| calls.attach(request).await)
        .expect("an address")
        .url;
    Stream::open(&url).expect("a stream")
}

pub fn attach_to_output(lab: &Lab) {
    let pod = lab.pod();
    let mut config = script(
        "main",
        "trap 'echo heard; echo said >&2; exit 3' TERM; echo ready; while :; do sleep 0.1; done",
    );
    config.stdin = false;
    let container = pod.run(config);
    container.wait_for("ready");
    let mut stream = attach(lab, &container, false);
    // Nothing tells when the engine has attached; what is written meanwhile is not repeated.
    std::thread::sleep(std::time::Duration::from_secs(1));
    container.stop(100).expect("a stop");
    stream.finish().expect("an end");
    assert_eq!(stream.received(Stream::STDOUT), b"heard\n");
    assert_eq!(stream.received(Stream::STDERR), b"said\n");
    // The log has it as well.
    assert_eq!(container.stdout(), "ready\nheard\n");
}

pub fn attach_to_stdin(lab: &Lab) {
    let pod = lab.pod();
    let mut config = script(
        "main",
        "while read a; do echo \"<$a>\"; done; echo over; exit 2",
    );
    config.stdin = true;
    config.stdin_once = true;
    let container = pod.run(config);
    let mut stream = attach(lab, &container, true);
    stream.send(Stream::STDIN, b"a line\n").expect("sent");
    stream
        .expect(Stream::STDOUT, "<a line>\n")
        .expect("an echo");
    // The only one who attaches goes, so that stdin ends.
    drop(stream);
    assert_eq!(container.wait().exit_code, 2);
    assert_eq!(container.stdout(), "<a line>\nover\n");
}

pub fn forwarded_port(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run(script(
        "main",
        "mkdir /www; echo served > /www/file; httpd -f -p 127.0.0.1:7000 -h /www",
    ));
    let listens = harness::wait_until(std::time::Duration::from_secs(60), || {
        container.exec("netstat -ltn | grep -c 127.0.0.1:7000").1 == "1\n"
    });
    assert!(listens, "nobody listens");
    let request = PortForwardRequest {
        pod_sandbox_id: pod.id.clone(),
        port: vec![7000],
    };
    let url = lab
        .runtime(async |mut calls| calls.port_forward(request).await)
        .expect("an address")
        .url;
    let mut stream = Stream::open(&format!("{url}?port=7000")).expect("a stream");
    stream
        .send(BYTES, b"GET /file HTTP/1.0\r\n\r\n")
        .expect("sent");
    stream.expect(BYTES, "served\n").expect("an answer");
}
