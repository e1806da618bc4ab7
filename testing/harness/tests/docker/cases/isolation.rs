//! Modes that would reach through the virtual machine's wall: refused, with a sentence, and nothing half done.

use super::{Verdict, observed};
use crate::docker::Docker;
use crate::runtime::Runtime;

/// A container with these options runs with runc, and with ours is refused by words that hold this.
pub fn refused(docker: &Docker, options: &[&str], words: &str) -> Verdict {
    let name = docker.name("refused");
    let args = [
        &["run", "--name", &name],
        options,
        &["busybox", "echo", "ran"],
    ]
    .concat();
    let done = docker.run(&args);
    if docker.runtime == Runtime::Runc {
        assert_eq!((done.code, done.stdout.as_str()), (0, "ran\n"), "{done:?}");
        return observed(done.stdout);
    }
    if done.code == 0 {
        return observed(done.stdout);
    }
    assert!(
        done.stderr.contains("unsupported: ") && done.stderr.contains(words),
        "{done:?}"
    );
    // Docker keeps what it could not start, to be started again or removed.
    assert_eq!(docker.inspect(&name, ".State.Status"), "created");
    assert_eq!(docker.inspect(&name, ".State.Running"), "false");
    docker.ok(&["rm", &name]);
    Verdict::Refused
}

/// A block device of this machine.
pub fn a_disk() -> Option<String> {
    let entries = std::fs::read_dir("/sys/block").ok()?;
    let names = entries.flatten().map(|entry| entry.file_name());
    names
        .filter_map(|name| Some(format!("/dev/{}", name.to_str()?)))
        .find(|path| std::path::Path::new(path).exists())
}

pub fn network_of_the_host(docker: &Docker) -> Verdict {
    refused(
        docker,
        &["--network", "host"],
        "the host's network namespace",
    )
}

pub fn processes_of_the_host(docker: &Docker) -> Verdict {
    refused(docker, &["--pid", "host"], "the host's pid namespace")
}

pub fn ipc_of_the_host(docker: &Docker) -> Verdict {
    refused(docker, &["--ipc", "host"], "the host's ipc namespace")
}

pub fn hostname_of_the_host(docker: &Docker) -> Verdict {
    refused(docker, &["--uts", "host"], "the host's uts namespace")
}

pub fn processes_of_another_container(docker: &Docker) -> Verdict {
    let other = docker.background(&[], &["sleep", "1000"]);
    refused(
        docker,
        &["--pid", &format!("container:{other}")],
        "joining the pid namespace",
    )
}

pub fn ipc_of_another_container(docker: &Docker) -> Verdict {
    let other = docker.background(&["--ipc", "shareable"], &["sleep", "1000"]);
    refused(
        docker,
        &["--ipc", &format!("container:{other}")],
        "joining the ipc namespace",
    )
}

pub fn device_of_the_host(docker: &Docker) -> Verdict {
    refused(docker, &["--device", "/dev/kvm"], "/dev/kvm")
}

pub fn disk_of_the_host(docker: &Docker) -> Verdict {
    let Some(disk) = a_disk() else {
        return Verdict::Skipped("this machine has no disk of its own");
    };
    refused(docker, &["--device", &disk], &disk)
}

pub fn socket_of_the_host(docker: &Docker) -> Verdict {
    let socket = docker.folder().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    let bind = format!("{}:/socket", socket.display());
    refused(docker, &["-v", &bind], "a socket of the host")
}

pub fn kernel_interfaces_of_the_host(docker: &Docker) -> Verdict {
    refused(
        docker,
        &["-v", "/proc:/host/proc:ro"],
        "it would show the host's kernel",
    )
}

pub fn control_groups_of_the_host(docker: &Docker) -> Verdict {
    refused(
        docker,
        &["-v", "/sys/fs/cgroup:/cgroup:ro"],
        "it would show the host's kernel",
    )
}

pub fn kernel_is_another_one(docker: &Docker) -> Verdict {
    let release = docker.sh(&[], "uname -r");
    let host = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    assert_eq!(
        release == host,
        docker.runtime == Runtime::Runc,
        "{release}"
    );
    let id = docker.sh(&[], "cat /proc/sys/kernel/random/boot_id");
    let hosts = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("an id");
    assert_eq!(id == hosts, docker.runtime == Runtime::Runc, "{id}");
    observed(())
}

pub fn beside_each_other(docker: &Docker) -> Verdict {
    // Chosen per container: one of runc's and one of ours on one engine, with a volume between them.
    let volume = docker.name("volume");
    let bind = format!("{volume}:/v");
    let other = docker.name("other");
    docker.ok(&[
        "run",
        "--runtime",
        "runc",
        "--detach",
        "--name",
        &other,
        "-v",
        &bind,
        "busybox",
        "sh",
        "-c",
        "while ! test -e /v/question; do sleep 0.1; done; cp /v/question /v/answer; sleep 1000",
    ]);
    let seen = docker.sh(&["-v", &bind], "echo asked > /v/q; mv /v/q /v/question; while ! test -s /v/answer; do sleep 0.1; done; cat /v/answer");
    docker.ok(&["rm", "--force", &other]);
    docker.ok(&["volume", "rm", &volume]);
    observed(seen)
}
