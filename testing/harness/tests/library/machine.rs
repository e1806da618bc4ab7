//! What the tests in here share: a sandbox of the library's, and containers that run a script.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::{Cofferdam, image};
use oci_spec::runtime::{ProcessBuilder, RootBuilder, Spec};
use sandbox::config::Config;
use sandbox::spec::{GuestSpec, Rootfs, Size, rewrite};
use sandbox::stdio::Stdio;
use sandbox::{Container, ContainerId, Sandbox, SandboxError, SandboxOptions};

/// Longer than anything takes here.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A root file system of this test's own, with busybox.
pub fn rootfs(cofferdam: &Cofferdam) -> PathBuf {
    let folder = cofferdam.folder().join("rootfs");
    fs::create_dir(&folder).expect("mkdir");
    let unpacked = Command::new("tar")
        .arg("-xf")
        .arg(image("busybox.rootfs.tar").expect("the image"))
        .arg("-C")
        .arg(&folder)
        .status()
        .expect("tar runs");
    assert!(unpacked.success());
    folder
}

/// A configuration for programs that are not in the prefix.
pub fn config_file(cofferdam: &Cofferdam) -> PathBuf {
    let prefix = cofferdam.program();
    let prefix = prefix.parent().and_then(Path::parent).expect("the prefix");
    let path = cofferdam.folder().join("library.toml");
    let text = format!(
        "kernel = {:?}\ninitrd = {:?}\nvmm = {:?}\nfile_server = {:?}\n",
        prefix.join("lib/cofferdam/vmlinux"),
        prefix.join("lib/cofferdam/initramfs.cpio"),
        prefix.join("libexec/cofferdam/cofferdam-vmm"),
        prefix.join("libexec/cofferdam/cofferdam-fs")
    );
    fs::write(&path, text).expect("writes");
    path
}

/// A booted sandbox that shows nothing yet.
pub async fn boot(cofferdam: &Cofferdam) -> Sandbox {
    let config = Config::from_file(&config_file(cofferdam)).expect("a configuration");
    let size = Size {
        memory: 256 << 20,
        vcpus: 1,
    };
    let booted = Sandbox::boot(&config, SandboxOptions::new("pod", "pod", size)).await;
    booted.unwrap_or_else(|error| panic!("boots: {}", sandbox::chain(&error)))
}

/// A container's name.
pub fn id(name: &str) -> ContainerId {
    ContainerId::new(name).expect("a name")
}

/// A container that runs a script on this root file system.
pub fn script(name: &str, rootfs: &Rootfs, text: &str) -> GuestSpec {
    let process = ProcessBuilder::default()
        .args(["/bin/sh", "-c", text].map(str::to_owned))
        .env(["PATH=/bin:/sbin".to_owned()])
        .cwd("/")
        .build()
        .expect("a process");
    let root = RootBuilder::default()
        .path("/")
        .readonly(false)
        .build()
        .expect("a root");
    let mut spec = Spec::default();
    spec.set_process(Some(process)).set_root(Some(root));
    spec.set_hostname(None);
    rewrite(&id(name), &spec, Path::new("/"), rootfs).expect("a spec for the guest")
}

/// An overlay of a read-only folder and a new writable layer in `folder`.
pub fn layered(lower: &Path, folder: &Path) -> Rootfs {
    for name in ["upper", "work"] {
        fs::create_dir_all(folder.join(name)).expect("mkdir");
    }
    Rootfs::Layers {
        layers: vec![lower.to_owned()],
        upper: folder.join("upper"),
        work: folder.join("work"),
    }
}

/// Output that is collected until its end.
pub struct Output(std::thread::JoinHandle<String>);

/// Stdio whose output comes together in one text.
pub fn collected() -> (Stdio, Output) {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let copy = writer.try_clone().expect("a copy");
    let thread = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        text
    });
    let stdio = Stdio::Pipes {
        stdin: None,
        stdout: Some(OwnedFd::from(writer)),
        stderr: Some(OwnedFd::from(copy)),
    };
    (stdio, Output(thread))
}

impl Output {
    pub fn text(self) -> String {
        self.0.join().expect("reads")
    }
}

/// Makes and starts a container.
pub async fn start(
    sandbox: &Sandbox,
    name: &str,
    spec: &GuestSpec,
) -> Result<(Container, Output), SandboxError> {
    let (stdio, output) = collected();
    let container = sandbox.create(&id(name), spec, stdio).await?;
    container.start().await?;
    Ok((container, output))
}

/// Runs a script as a container from beginning to end; its exit code and output.
pub async fn run(sandbox: &Sandbox, name: &str, spec: &GuestSpec) -> (u8, String) {
    let (container, output) = start(sandbox, name, spec).await.expect("starts");
    let exit = container.wait().await;
    container.delete().await.expect("deletes");
    (exit.code, output.text())
}

/// Runs a test of the library on one thread, which has to be the one that the machine ends with.
pub fn on_one_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime
        .block_on(async { tokio::time::timeout(LIMIT, test).await })
        .expect("the test ends in time");
}
