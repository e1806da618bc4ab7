//! A pod: two containers in one virtual machine, made with nothing but the library.
//!
//! `pod ROOTFS`, as root, where `ROOTFS` is a folder with a root file system that has a shell and `nc`. One container
//! serves a page on the pod's loopback interface, the other one reads it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use oci_spec::runtime::{ProcessBuilder, RootBuilder, Spec};
use sandbox::config::Config;
use sandbox::spec::{self, GuestSpec, Rootfs};
use sandbox::stdio::Stdio;
use sandbox::{ContainerId, Sandbox, SandboxError, SandboxOptions, chain};

const SERVER: &str = r#"
    echo "server: $(hostname), boot $(cat /proc/sys/kernel/random/boot_id)" > /page
    echo ready
    nc -l -p 8080 < /page
"#;

const CLIENT: &str = r#"
    until nc 127.0.0.1 8080 < /dev/null 2> /dev/null; do sleep 0.1; done
    echo "client: $(hostname), boot $(cat /proc/sys/kernel/random/boot_id)"
"#;

// One thread: the machine ends with the thread that booted it.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(rootfs) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: pod ROOTFS");
        return ExitCode::from(2);
    };
    match pod(&rootfs).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("pod: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

async fn pod(rootfs: &Path) -> Result<u8, SandboxError> {
    let config = Config::load()?;
    let (server, client) = (id("server")?, id("client")?);
    let server_spec = shell(&server, rootfs, SERVER)?;
    let client_spec = shell(&client, rootfs, CLIENT)?;

    let size = spec::size(&server_spec.spec, &config);
    let sandbox = Sandbox::boot(&config, SandboxOptions::new("example", "pod", size)).await?;
    // Containers come, and go, while the machine runs.
    let serving = sandbox.create(&server, &server_spec, inherited()?).await?;
    serving.start().await?;
    let reading = sandbox.create(&client, &client_spec, inherited()?).await?;
    reading.start().await?;
    let code = reading.wait().await.code;
    reading.delete().await?;
    serving.wait().await;
    serving.delete().await?;
    sandbox.stop().await;
    Ok(code)
}

fn id(name: &str) -> Result<ContainerId, SandboxError> {
    Ok(ContainerId::new(name)?)
}

/// A container that runs a script.
fn shell(id: &ContainerId, rootfs: &Path, script: &str) -> Result<GuestSpec, SandboxError> {
    let process = ProcessBuilder::default()
        .args(["/bin/sh", "-c", script].map(str::to_owned))
        .env(["PATH=/bin:/usr/bin:/sbin:/usr/sbin".to_owned()])
        .cwd("/")
        .build();
    let root = RootBuilder::default().path(rootfs).readonly(false).build();
    let mut spec = Spec::default();
    // Neither builder was left without what it needs.
    spec.set_process(process.ok()).set_root(root.ok());
    spec.set_hostname(None);
    let bundle = Path::new("/");
    spec::check(&spec, bundle)?;
    Ok(spec::rewrite(id, &spec, bundle, &Rootfs::Bundle)?)
}

/// This program's own output.
fn inherited() -> Result<Stdio, SandboxError> {
    let copy = |fd: &dyn AsFd| fd.as_fd().try_clone_to_owned();
    let outputs =
        || -> io::Result<(OwnedFd, OwnedFd)> { Ok((copy(&io::stdout())?, copy(&io::stderr())?)) };
    let (stdout, stderr) = outputs().map_err(SandboxError::system("duplicate the output"))?;
    Ok(Stdio::Pipes {
        stdin: None,
        stdout: Some(stdout),
        stderr: Some(stderr),
    })
}
