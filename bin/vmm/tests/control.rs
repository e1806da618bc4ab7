//! What the program does with requests: no KVM is needed for that.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use vmm_control::{Create, Handle, Reply, Request, Spare, receive, send};

/// A VMM without a machine, and its driver's end of the control socket.
fn start() -> (Child, OwnedFd) {
    let kind = SocketType::SEQPACKET;
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).expect("a pair");
    // A child of another test may get it as well: nobody waits for this end to be closed.
    fcntl_setfd(&theirs, FdFlags::empty()).expect("sets");
    let child = Command::new(env!("CARGO_BIN_EXE_cofferdam-vmm"))
        .arg(theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    (child, ours)
}

/// How it ends: its code and what it said.
fn end(mut child: Child) -> (Option<i32>, String) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while child.try_wait().expect("asks").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("kills");
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let done = child.wait_with_output().expect("reads");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    (done.status.code(), said)
}

fn machine() -> Create {
    Create {
        kvm: Handle(0),
        kernel: Handle(1),
        image: Handle(2),
        command_line: String::new(),
        memory_bytes: 64 << 20,
        growth_bytes: 0,
        huge_pages: false,
        vcpus: 1,
        console: Handle(3),
        link: Handle(4),
        sockets: None,
        share: None,
        nics: Vec::new(),
        disks: Vec::new(),
        images: Vec::new(),
        spare: Spare::default(),
    }
}

#[test]
fn it_ends_when_it_is_told_and_when_its_driver_is_gone() {
    let (child, control) = start();
    send(&control, &Request::Stop, &[]).expect("sends");
    assert_eq!(end(child), (Some(0), String::new()));
    let (child, control) = start();
    rustix::net::shutdown(&control, rustix::net::Shutdown::Both).expect("hangs up");
    assert_eq!(end(child), (Some(0), String::new()));
}

#[test]
fn what_cannot_be_is_said_and_is_the_end() {
    let requests = [
        Request::Boot,
        Request::Pause,
        Request::Resume,
        Request::Resize {
            memory_bytes: 64 << 20,
        },
        Request::Stats,
    ];
    for request in requests {
        let (child, control) = start();
        send(&control, &request, &[]).expect("sends");
        let (code, said) = end(child);
        assert_eq!(code, Some(1), "{request:?}: {said}");
        assert!(said.contains("no machine yet"), "{request:?}: {said}");
    }
    for (bytes, named) in [
        (b"{}".to_vec(), "malformed"),
        (vec![b' '; (64 << 10) + 1], "too large"),
    ] {
        let (child, control) = start();
        rustix::io::write(&control, &bytes).expect("writes");
        let (code, said) = end(child);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(named), "{said}");
    }
}

#[test]
fn a_machine_that_cannot_be_made_is_refused_in_words() {
    let null = File::open("/dev/null").expect("opens");
    let five: [BorrowedFd<'_>; 5] = [null.as_fd(); 5];
    let cases: [(&str, Create, &[BorrowedFd<'_>]); 5] = [
        ("does not bring", machine(), &[]),
        ("kvm: ", machine(), &five),
        (
            "1 to 64 virtual CPUs",
            Create {
                vcpus: 65,
                ..machine()
            },
            &five,
        ),
        (
            "whole MiB",
            Create {
                memory_bytes: (64 << 20) + 1,
                ..machine()
            },
            &five,
        ),
        (
            "multiples of 2 MiB",
            Create {
                growth_bytes: 1 << 20,
                ..machine()
            },
            &five,
        ),
    ];
    for (named, wanted, with) in cases {
        let (child, control) = start();
        send(&control, &Request::Create(Box::new(wanted)), with).expect("sends");
        let answer = receive::<Reply>(&control).expect("receives");
        let Some(Reply::Failed(reason)) = answer.map(|received| received.message) else {
            panic!("{named}: an answer")
        };
        assert!(reason.contains(named), "{reason}");
        send(&control, &Request::Stop, &[]).expect("sends");
        assert_eq!(end(child).0, Some(0), "{named}");
    }
}
