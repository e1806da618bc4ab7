//! A child is watched, confined and never outlives its owner.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use backend_process::{Child, Confinement, Device, Exit, Identity, Program};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

fn shell(script: &str) -> Program {
    Program {
        path: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        stdin: None,
        stderr: None,
        inherited: Vec::new(),
        network: None,
        groups: Vec::new(),
        confinement: Confinement::default(),
    }
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// What a program wrote on its stderr until its end.
async fn output_of(mut program: Program) -> String {
    let (sender, mut receiver) = tokio::net::unix::pipe::pipe().expect("a pipe");
    program.stderr = Some(sender.into_blocking_fd().expect("a descriptor"));
    let mut child = program.spawn().expect("starts");
    let mut text = String::new();
    receiver.read_to_string(&mut text).await.expect("reads");
    child.wait().await.expect("ends");
    text
}

#[test]
fn a_namespace_that_would_be_passed_over_is_refused() {
    let mut program = shell("true");
    program.network = Some(fs::File::open("/proc/self/ns/net").expect("ours").into());
    let error = program.spawn().expect_err("nothing moves it there");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn a_device_that_would_be_passed_over_is_refused() {
    let mut program = shell("true");
    program.confinement.device = Some(Device {
        name: c"null",
        number: (1, 3),
    });
    let error = program.spawn().expect_err("nobody puts it anywhere");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

#[tokio::test(flavor = "current_thread")]
async fn the_end_is_told_as_it_was() {
    let mut child = shell("exit 7").spawn().expect("starts");
    assert_eq!(child.wait().await.expect("ends"), Exit::Code(7));
    assert_eq!(child.wait().await.expect("tells again"), Exit::Code(7));
    assert_eq!(child.pid(), None);
    let mut child = shell("kill -TERM $$").spawn().expect("starts");
    assert_eq!(child.wait().await.expect("ends"), Exit::Signal(15));
    let mut child = shell("exec sleep 1000").spawn().expect("starts");
    assert!(
        timeout(Duration::from_millis(50), child.wait())
            .await
            .is_err(),
        "it runs"
    );
    assert_eq!(child.try_wait().expect("asks"), None);
    assert_eq!(child.kill().await.expect("ends"), Exit::Signal(9));
    assert_eq!(child.kill().await.expect("tells again"), Exit::Signal(9));
}

#[tokio::test(flavor = "current_thread")]
async fn a_dropped_child_is_gone() {
    let child = shell("exec sleep 1000").spawn().expect("starts");
    let pid = child.pid().expect("it runs");
    assert!(exists(pid));
    drop(child);
    assert!(!exists(pid));
}

#[tokio::test(flavor = "current_thread")]
async fn a_child_dies_with_the_thread_that_started_it() {
    let (mut child, pid): (Child, u32) = std::thread::scope(|scope| {
        let runtime = tokio::runtime::Handle::current();
        let start = move || {
            let _inside = runtime.enter();
            let child = shell("exec sleep 1000").spawn().expect("starts");
            let pid = child.pid().expect("it runs");
            (child, pid)
        };
        scope.spawn(start).join().expect("the thread ends")
    });
    let exit = timeout(Duration::from_secs(10), child.wait())
        .await
        .expect("it dies")
        .expect("reaped");
    assert_eq!(exit, Exit::Signal(9));
    assert!(!exists(pid));
}

#[tokio::test(flavor = "current_thread")]
async fn a_missing_program_is_an_error_and_leaves_no_process() {
    let mut program = shell("");
    program.path = "/nowhere/program".into();
    let error = program.spawn().expect_err("it is missing");
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    let children = fs::read_to_string(format!(
        "/proc/self/task/{}/children",
        rustix::thread::gettid().as_raw_nonzero()
    ))
    .unwrap_or_default();
    assert!(children.trim().is_empty(), "{children}");
}

#[tokio::test(flavor = "current_thread")]
async fn only_named_descriptors_are_inherited() {
    // Open without close-on-exec, as a careless caller may have it.
    let stray = rustix::io::dup(fs::File::open("/dev/null").expect("opens")).expect("a descriptor");
    let named = rustix::io::dup(fs::File::open("/dev/zero").expect("opens")).expect("a descriptor");
    let (stray_number, number) = (stray.as_raw_fd(), named.as_raw_fd());
    let mut program = shell(&format!(
        "readlink /proc/$$/fd/{number} >&2; readlink /proc/$$/fd/{stray_number} >&2 || echo closed >&2; set -- /proc/$$/fd/*; echo $# >&2"
    ));
    program.inherited = vec![named];
    let text = output_of(program).await;
    assert_eq!(
        text.split_whitespace().collect::<Vec<_>>(),
        // Standard ones, the named one, and that by which the shell lists them: it starts no other program here, whose
        // pipes would be seen now and then.
        ["/dev/zero", "closed", "5"],
        "{text}"
    );
}

#[tokio::test(flavor = "current_thread")]
async fn a_child_has_no_more_than_it_was_given() {
    let text = output_of(shell(
        "env | grep -v '^PWD=\\|^_=\\|^SHLVL=\\|^OLDPWD=' >&2; pwd >&2; ulimit -c >&2; grep NoNewPrivs /proc/$$/status >&2",
    ))
    .await;
    assert_eq!(
        text.split_whitespace().collect::<Vec<_>>(),
        ["/", "0", "NoNewPrivs:", "1"],
        "{text}"
    );
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped the rest: needs root");
        return;
    }
    let mut program =
        shell("id -u >&2; id -G >&2; touch /tmp/written >&2 || cat /proc/net/dev | wc -l >&2");
    program.confinement = Confinement {
        identity: Some(Identity {
            uid: 64_125,
            gid: 64_126,
            groups: vec![64_127],
        }),
        namespaces: true,
        ..Confinement::default()
    };
    let text = output_of(program).await;
    assert!(text.starts_with("64125\n64126 64127\n"), "{text}");
    assert!(text.contains("Read-only file system"), "{text}");
    assert!(
        text.ends_with("\n3\n"),
        "two lines of titles and the loopback device: {text}"
    );
}
