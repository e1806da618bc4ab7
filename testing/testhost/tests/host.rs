//! The test host carries a command and its output, keeps this machine as it is, and leaves nothing. Skipped, with the
//! reason printed, without root or what it boots from.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use testhost::{Config, Error, Host, Images, Job};

/// How long anything may take that does not take long: these tests share a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

const PROGRAM: &str = env!("CARGO_BIN_EXE_testhost");

/// Cargo's build directory, in which xtask puts what is tested.
fn target() -> PathBuf {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    temporary.parent().expect("a parent").to_path_buf()
}

/// What a test host boots from, and a folder for its results.
struct Fixture {
    images: PathBuf,
    results: tempfile::TempDir,
}

impl Fixture {
    fn find() -> Option<Self> {
        let images = target().join("testhost");
        let reason = if !rustix::process::geteuid().is_root() {
            "needs root".to_owned()
        } else if let Err(error) = Images::find(&images) {
            error.to_string()
        } else {
            let results = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
            return Some(Self { images, results });
        };
        eprintln!("skipped: {reason}");
        None
    }

    /// The command in a test host.
    fn run(&self, options: &[&str], command: &[&str]) -> Command {
        let mut run = Command::new(PROGRAM);
        run.arg("run");
        run.arg("--images").arg(&self.images);
        run.arg("--results").arg(self.results.path());
        run.arg("--show").arg(target());
        run.args(options).arg("--").args(command);
        run.stdin(Stdio::null());
        run
    }

    fn result(&self, name: &str) -> String {
        let path = self.results.path().join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// The numbers that `seq` writes, a megabyte of them.
fn numbers() -> String {
    (1..=150_000).map(|number| format!("{number}\n")).collect()
}

#[test]
fn a_command_has_kvm_and_its_output_and_changes_nothing_here() {
    let Some(fixture) = Fixture::find() else {
        return;
    };
    let guest = target().join("cofferdam/lib/cofferdam");
    let mine = format!("/etc/testhost-{}", std::process::id());
    let script = r#"
        cd "$COFFERDAM_TESTHOST_RESULTS"
        cat /sys/fs/cgroup/cgroup.controllers >controllers
        cat /sys/fs/cgroup/cgroup.subtree_control >enabled
        ls /dev/kvm /dev/vhost-net /dev/vhost-vsock /dev/net/tun /dev/fuse >devices
        mkdir -p /run/two/lower /run/two/upper /run/two/work /run/two/merged
        mount -t overlay -o lowerdir=/run/two/lower,upperdir=/run/two/upper,workdir=/run/two/work overlay /run/two/merged
        ip netns add other && ip link add one type veth peer name two netns other && ip -br link show one >veth
        "$1" kvm --kernel "$2/vmlinux" --initrd "$2/initramfs.cpio" --deadline 150 >kvm 2>&1
        echo "code $?" >>kvm
        echo changed >"$3"
        echo changed >"$2/../changed"
        rm /etc/passwd
        # Holds both outputs open.
        sleep 1000 &
        seq 1 150000
        seq 1 150000 | tr 0-9 a-j >&2
        exit 42
    "#;
    let guest_text = guest.to_str().expect("text");
    let output = fixture
        .run(&[], &["sh", "-c", script, "sh", PROGRAM, guest_text, &mine])
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let end = &said[said.len().saturating_sub(1000)..];
    assert_eq!(output.status.code(), Some(42), "{end}");
    assert!(
        text(&output.stdout) == numbers(),
        "standard output is whole"
    );
    let letters: String = numbers()
        .chars()
        .map(|c| match c.to_digit(10) {
            Some(digit) => char::from(b'a' + u8::try_from(digit).expect("a digit")),
            None => c,
        })
        .collect();
    assert!(said == letters, "standard error is whole and apart: {end}");

    for controller in ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"] {
        for list in ["controllers", "enabled"] {
            let list = fixture.result(list);
            assert!(
                list.split_whitespace().any(|name| name == controller),
                "{list}"
            );
        }
    }
    assert_eq!(fixture.result("devices").lines().count(), 5);
    assert!(
        fixture.result("veth").starts_with("one@"),
        "two kinds of interfaces"
    );
    let kvm = fixture.result("kvm");
    if guest.join("vmlinux").exists() {
        assert!(kvm.contains("ran to its end"), "{kvm}");
        assert!(kvm.ends_with("code 0\n"), "{kvm}");
    } else {
        eprintln!("not tested: whether guests run, without a guest kernel");
    }

    assert!(
        !Path::new(&mine).exists(),
        "this machine has what was written"
    );
    assert!(
        !guest.join("../changed").exists(),
        "the tree has what was written"
    );
    assert!(Path::new("/etc/passwd").exists());
}

#[test]
fn a_command_that_runs_too_long_is_ended() {
    let Some(fixture) = Fixture::find() else {
        return;
    };
    let output = fixture
        .run(&["--timeout", "2"], &["sh", "-c", "echo here; sleep 1000"])
        .output()
        .expect("runs");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(124), "{said}");
    assert_eq!(text(&output.stdout), "here\n");
    assert!(
        said.contains("the command was still running after 2 s and was ended, in phase command"),
        "{said}"
    );
}

#[test]
fn a_killed_one_leaves_nothing() {
    let Some(fixture) = Fixture::find() else {
        return;
    };
    let mut run = fixture
        .run(
            &[],
            &[
                "sh",
                "-c",
                "echo yes >\"$COFFERDAM_TESTHOST_RESULTS/started\"; sleep 1000",
            ],
        )
        .spawn()
        .expect("runs");
    let started = fixture.results.path().join("started");
    until("the command's start", || {
        assert_eq!(run.try_wait().expect("answers"), None, "it has ended");
        started.exists()
    });
    let children = children(run.id());
    let names: Vec<_> = children.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(
        names.iter().filter(|name| name.starts_with("qemu")).count(),
        1,
        "{names:?}"
    );
    assert_eq!(names.len(), 3, "{names:?}");
    run.kill().expect("is killed");
    run.wait().expect("is dead");
    for (id, name) in children {
        until(&format!("the end of {name}"), || is_gone(id));
    }
}

#[test]
fn a_shell_has_this_terminal() {
    let Some(fixture) = Fixture::find() else {
        return;
    };
    let run = fixture.run(&[], &[]);
    let words: Vec<_> = std::iter::once(run.get_program())
        .chain(run.get_args())
        .map(|word| word.to_str().expect("text"))
        .collect();
    let line = format!("stty rows 33 columns 99; exec {}", words.join(" "));
    let mut script = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("util-linux's script");
    let mut keys = script.stdin.take().expect("a pipe");
    keys.write_all(b"stty size; tty; hostname; exit 9\n")
        .expect("is typed");
    let output = end(script);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(9), "{shown}");
    for expected in ["33 99\r\n", "/dev/hvc0\r\n", "\ntesthost\r\n"] {
        assert!(shown.contains(expected), "{shown:?}");
    }
    drop(keys);
}

#[test]
fn a_boot_that_fails_says_where() {
    let Some(fixture) = Fixture::find() else {
        return;
    };
    let config = Config {
        program: PROGRAM.into(),
        images: Images::find(&fixture.images).expect("is there"),
        memory_mib: 500,
        counted: false,
        results: fixture.results.path().to_path_buf(),
        folders: Vec::new(),
        boot: Duration::from_millis(50),
    };
    let job = Job {
        command: vec!["true".into()],
        directory: "/".into(),
        environment: Vec::new(),
        limit: None,
        terminal: None,
    };
    let boot = |config: &Config| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime
            .block_on(Host::boot(config, &job))
            .expect_err("does not boot")
    };
    let start = Instant::now();
    let error = boot(&config);
    assert!(
        matches!(&error, Error::Hung { phase, .. } if phase == "kernel"),
        "{error}"
    );
    assert!(start.elapsed() >= 2 * config.boot, "it is tried twice");

    let nothing = Config {
        images: Images {
            initramfs: "/bin/busybox".into(),
            ..config.images.clone()
        },
        boot: PATIENCE,
        ..config
    };
    let error = boot(&nothing).to_string();
    assert!(
        error.contains("QEMU exited with code 0 in phase kernel"),
        "{error}"
    );
    assert!(
        error.contains("Kernel panic"),
        "the console's end is shown: {error}"
    );
}

/// Waits for the end; kills what does not come to one.
fn end(mut child: Child) -> Output {
    let deadline = Instant::now() + PATIENCE;
    while exited(&mut child).is_none() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
    }
    if exited(&mut child).is_none() {
        child.kill().expect("is killed");
    }
    child.wait_with_output().expect("ends")
}

fn exited(child: &mut Child) -> Option<ExitStatus> {
    child.try_wait().expect("answers")
}

fn until(what: &str, mut come: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !come() {
        assert!(Instant::now() < deadline, "{what} did not come");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Ids and names of a process's children.
fn children(parent: u32) -> Vec<(u32, String)> {
    let ids = fs::read_dir("/proc").expect("lists");
    ids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|id| {
            let (name, parent_of) = stat(id)?;
            (parent_of == parent).then_some((id, name))
        })
        .collect()
}

/// Nothing is there but perhaps what its new parent has not read yet.
fn is_gone(id: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    status.is_empty() || status.contains("State:\tZ")
}

fn stat(id: u32) -> Option<(String, u32)> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (front, behind) = text.rsplit_once(") ")?;
    let name = front.split_once(" (")?.1.to_owned();
    Some((name, behind.split(' ').nth(1)?.parse().ok()?))
}
