//! What a process may do.

use std::fs;

use super::{Verdict, observed};
use crate::docker::Docker;
use crate::runtime::Runtime;

const STATUS: &str = "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status";

pub fn defaults(docker: &Docker) -> Verdict {
    let seen = docker.sh(
        &[],
        &format!("{STATUS}; umask; id -G; cat /proc/self/oom_score_adj"),
    );
    assert!(seen.contains("Seccomp:\t2"), "{seen}");
    observed(seen)
}

pub fn capabilities(docker: &Docker) -> Verdict {
    let seen = [
        &["--cap-add", "net_admin", "--cap-drop", "chown"][..],
        &["--cap-drop", "all"],
        &["--cap-drop", "all", "--cap-add", "chown"],
        &["--user", "1000"],
        &["--user", "1000", "--cap-add", "net_raw"],
    ]
    .map(|options| docker.sh(options, STATUS));
    let done = docker.try_sh(&["--cap-drop", "chown"], "touch /x; chown 1 /x");
    observed((seen, done.code, done.stderr))
}

pub fn no_new_privileges(docker: &Docker) -> Verdict {
    let seen = docker.sh(&["--security-opt", "no-new-privileges"], STATUS);
    assert!(seen.contains("NoNewPrivs:\t1"), "{seen}");
    observed(seen)
}

pub fn seccomp_unconfined(docker: &Docker) -> Verdict {
    let seen = docker.sh(&["--security-opt", "seccomp=unconfined"], STATUS);
    assert!(seen.contains("Seccomp:\t0"), "{seen}");
    observed(seen)
}

pub fn seccomp_profile_of_a_file(docker: &Docker) -> Verdict {
    let profile = docker.folder().join("profile.json");
    let rules = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}"#;
    fs::write(&profile, rules).expect("a profile");
    let option = format!("seccomp={}", profile.display());
    let done = docker.try_sh(
        &["--security-opt", &option],
        "touch /file && echo touched; mkdir /folder",
    );
    assert!(done.stderr.contains("Operation not permitted"), "{done:?}");
    observed((done.code, done.stdout))
}

pub fn apparmor_unconfined(docker: &Docker) -> Verdict {
    observed(docker.sh(&["--security-opt", "apparmor=unconfined"], "echo ran"))
}

pub fn masked_and_read_only_paths(docker: &Docker) -> Verdict {
    let script = "wc -c < /proc/kcore; touch /proc/sysrq-trigger; echo 1 > /proc/sys/kernel/panic; touch /sys/kernel/x; ls /sys/firmware";
    let done = docker.try_sh(&[], script);
    observed((done.code, done.stdout))
}

pub fn unmasked_paths(docker: &Docker) -> Verdict {
    let script = "grep -cE ' /proc/(kcore|keys|sys|timer_list) ' /proc/mounts";
    let masked = docker.try_sh(&[], script);
    let free = docker.try_sh(&["--security-opt", "systempaths=unconfined"], script);
    assert_ne!(masked.stdout, free.stdout, "{masked:?}");
    observed((masked.code, free.code, free.stdout))
}

pub fn open_file_limits(docker: &Docker) -> Verdict {
    let options = [
        "--ulimit",
        "nofile=100:200",
        "--ulimit",
        "core=0",
        "--ulimit",
        "nproc=500",
    ];
    observed(docker.sh(
        &options,
        "ulimit -n; ulimit -Hn; ulimit -c; grep processes /proc/self/limits",
    ))
}

pub fn sysctls(docker: &Docker) -> Verdict {
    let options = [
        "--sysctl",
        "kernel.msgmax=7777",
        "--sysctl",
        "net.ipv4.ip_forward=1",
        "--sysctl",
        "net.ipv4.ip_local_port_range=2000 3000",
    ];
    observed(docker.sh(&options, "cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ip_local_port_range"))
}

pub fn devices_that_every_container_has(docker: &Docker) -> Verdict {
    let script = "ls /dev | sort | tr '\\n' ' '; head -c 3 /dev/zero | wc -c; echo x > /dev/full; readlink /dev/fd; ls -l /dev/null | cut -c1-10";
    let done = docker.try_sh(&[], script);
    observed((done.code, done.stdout))
}

pub fn device_by_another_name(docker: &Docker) -> Verdict {
    let script = "head -c 3 /dev/nothing | wc -c; echo x > /dev/nothing";
    let done = docker.try_sh(&["--device", "/dev/zero:/dev/nothing:r"], script);
    observed((done.code, done.stdout))
}

pub fn device_rules(docker: &Docker) -> Verdict {
    let script = "mknod /tmp/fuse c 10 229; head -c 0 /tmp/fuse";
    let kept = docker.try_sh(&[], script);
    let given = docker.try_sh(&["--device-cgroup-rule", "c 10:229 rw"], script);
    observed((kept.code, kept.stderr, given.code, given.stderr))
}

pub fn privileged(docker: &Docker) -> Verdict {
    if docker.runtime == Runtime::Runc {
        // It would change this machine's kernel.
        return observed("privileged in its own kernel");
    }
    let before = fs::read_to_string("/proc/sys/kernel/panic").expect("a number");
    let script = "grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; mkdir /m; mount -t tmpfs none /m && echo mounted; echo 57 > /proc/sys/kernel/panic && cat /proc/sys/kernel/panic; ls /dev/null";
    let done = docker.try_sh(&["--privileged"], script);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(has_all_capabilities(&done.stdout), "{done:?}");
    for shown in ["Seccomp:\t0", "mounted", "\n57\n"] {
        assert!(done.stdout.contains(shown), "{shown}: {done:?}");
    }
    let host = fs::read_to_string("/proc/sys/kernel/panic").expect("a number");
    assert_eq!(host, before, "it is the host's");
    let disks = docker.try_sh(
        &["--privileged"],
        "ls /dev | grep -E '^(vd|sd|nvme|kvm|loop)'",
    );
    assert_eq!(disks.stdout, "", "devices of the host are there");
    observed("privileged in its own kernel")
}

pub fn privileged_exec(docker: &Docker) -> Verdict {
    let name = docker.background(&[], &["sleep", "1000"]);
    let done = docker.run(&[
        "exec",
        "--privileged",
        &name,
        "grep",
        "CapEff",
        "/proc/self/status",
    ]);
    if docker.runtime == Runtime::Runc {
        return observed("every capability");
    }
    assert!(has_all_capabilities(&done.stdout), "{done:?}");
    observed("every capability")
}

/// What every release knows: up to CAP_AUDIT_READ.
const KNOWN: u64 = (1 << 38) - 1;

/// Whether a status file's `CapEff` has all that this machine has: newer releases ask for no more than they have.
fn has_all_capabilities(status: &str) -> bool {
    let set = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let own = fs::read_to_string("/proc/self/status").expect("reads");
    let own = set(&own, "CapBnd:").expect("a set") & KNOWN;
    set(status, "CapEff:").is_some_and(|effective| effective & own == own)
}

pub fn user_namespace_of_the_engine(docker: &Docker) -> Verdict {
    observed(docker.sh(&["--userns", "host"], "cat /proc/self/uid_map"))
}
