//! What is behind `kubectl exec`, `attach` and `port-forward`.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use cri::Stream;
use cri::v1::{AttachRequest, ExecRequest, PortForwardRequest};
use serde_json::Value;

use crate::lab::Lab;
use crate::pod::{Container, Pod, command, script};

/// Channels of a forwarded port: its bytes, and errors.
const BYTES: u8 = 0;
const ERRORS: u8 = 1;

/// Nobody waits longer for an answer that is at hand.
const SOON: Duration = Duration::from_secs(60);

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
    std::thread::sleep(Duration::from_secs(1));
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

fn forward(lab: &Lab, pod: &Pod, port: i32) -> Stream {
    let request = PortForwardRequest {
        pod_sandbox_id: pod.id.clone(),
        port: vec![port],
    };
    let url = lab
        .runtime(async |mut calls| calls.port_forward(request).await)
        .expect("an address")
        .url;
    Stream::open(&format!("{url}?port={port}")).expect("a stream")
}

pub fn forwarded_port(lab: &Lab) {
    let pod = lab.pod();
    let container = pod.run(script(
        "main",
        "mkdir /www; echo served > /www/file; httpd -f -p 127.0.0.1:7000 -h /www",
    ));
    let listens = harness::wait_until(Duration::from_secs(60), || {
        container.exec("netstat -ltn | grep -c 127.0.0.1:7000").1 == "1\n"
    });
    assert!(listens, "nobody listens");
    let mut stream = forward(lab, &pod, 7000);
    stream
        .send(BYTES, b"GET /file HTTP/1.0\r\n\r\n")
        .expect("sent");
    stream.expect(BYTES, "served\n").expect("an answer");
}

pub fn forwarded_port_without_a_listener(lab: &Lab) {
    let pod = lab.pod();
    let _container = pod.run(command("main", &["sleep", "1000"]));
    let mut stream = forward(lab, &pod, 7001);
    stream.finish().expect("an end");
    // A channel begins with its port.
    let said = stream.received(ERRORS).get(2..).unwrap_or_default();
    assert!(!said.is_empty(), "no word of an error");
    for address in [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ] {
        let asked = pod.inside(|| -> std::io::Result<u8> {
            let mut stream = TcpStream::connect_timeout(&(address, 7001).into(), SOON)?;
            stream.set_read_timeout(Some(SOON))?;
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            Ok(byte[0])
        });
        let error = asked.expect_err("nobody listens").kind();
        assert!(
            [ErrorKind::ConnectionRefused, ErrorKind::ConnectionReset].contains(&error),
            "{address}: {error}"
        );
    }
}

/// What is behind a forwarded port: the engine connects like this.
pub fn connections_to_loopback(lab: &Lab) {
    const MUCH: usize = 3 << 20;
    let pod = lab.pod();
    let container = pod.run(command("main", &["nc", "-ll", "-p", "7002", "-e", "cat"]));
    let listen = harness::wait_until(Duration::from_secs(60), || {
        container.exec("netstat -ltn | grep -c :7002").1 == "1\n"
    });
    assert!(listen, "nobody listens");
    let sent: Vec<u8> = (0..MUCH).map(|at| (at % 251) as u8).collect();
    for address in [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ] {
        let target = SocketAddr::new(address, 7002);
        let (pod, sent) = (&pod, &sent);
        let talk = move || {
            let stream = pod.inside(|| TcpStream::connect_timeout(&target, SOON));
            let mut stream = stream.unwrap_or_else(|error| panic!("{target}: {error}"));
            let mut sending = stream.try_clone().expect("the same");
            let mut back = Vec::new();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    sending.write_all(sent).expect("all is taken");
                    // The echo ends when this does, and not before it has said everything.
                    sending.shutdown(Shutdown::Write).expect("an end");
                });
                stream.read_to_end(&mut back).expect("all comes back");
            });
            assert!(back == *sent, "{target}: {} bytes came back", back.len());
        };
        // At the same time, too.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(talk);
            }
        });
    }
}
