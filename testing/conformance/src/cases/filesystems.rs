//! Mounts of the kernel's own filesystems.

use anyhow::{Result, ensure};

use crate::case::{Case, Verdict, case, passed};
use crate::environment::Env;

/// The cases of this group.
pub const CASES: &[Case] = &[
    case("mounts/tmpfs-size-and-mode", tmpfs),
    case("mounts/proc", proc),
    case("mounts/sysfs-read-only", sysfs),
    case("mounts/devpts", devpts),
    case("mounts/mqueue", mqueue),
    case("mounts/cgroup", cgroup),
];

fn tmpfs(env: &Env) -> Result<Verdict> {
    // runc gives a tmpfs the mode of the directory that it covers, so there is none.
    let script = "grep ' /made tmpfs' /proc/mounts; stat -c %a /made; \
                  dd if=/dev/zero of=/made/file bs=1024 count=2048 2>&1 | tail -1; stat -c %s /made/file";
    let mut bundle = env.script(script)?;
    bundle.mount(
        "/made",
        "tmpfs",
        "tmpfs",
        &["nosuid", "nodev", "noexec", "size=1024k", "mode=1750"],
    );
    let text = env.run_text(&bundle)?;
    for word in ["nosuid", "nodev", "noexec", "size=1024k", "mode=1750"] {
        ensure!(text.contains(word), "the tmpfs has no {word}: {text:?}");
    }
    let lines: Vec<_> = text.lines().collect();
    ensure!(lines.get(1) == Some(&"1750"), "the mode is {lines:?}");
    ensure!(
        lines.last() == Some(&"1048576"),
        "the size is not enforced: {lines:?}"
    );
    passed()
}

fn proc(env: &Env) -> Result<Verdict> {
    let text = env.run_text(
        &env.script("grep ' /proc proc' /proc/mounts | wc -l; ls -d /proc/[0-9]* | head -1")?,
    )?;
    ensure!(text == "1\n/proc/1", "it printed {text:?}");
    passed()
}

fn sysfs(env: &Env) -> Result<Verdict> {
    let script = "grep '^sysfs /sys ' /proc/mounts; ls /sys/class | grep -c net; mkdir /sys/kernel/x 2>&1; exit 0";
    let text = env.run_text(&env.script(script)?)?;
    ensure!(
        text.contains("sysfs ro,"),
        "sysfs is not read-only: {text:?}"
    );
    ensure!(
        text.contains("\n1\n") && text.contains("Read-only"),
        "it printed {text:?}"
    );
    passed()
}

fn devpts(env: &Env) -> Result<Verdict> {
    let script = "grep ' /dev/pts devpts' /proc/mounts; ls /dev/pts; test -c /dev/pts/ptmx && echo ptmx; \
                  script -q -c 'tty' /dev/null </dev/null 2>/dev/null | grep -q pts && echo allocated; exit 0";
    let text = env.run_text(&env.script(script)?)?;
    for word in [
        "gid=5",
        "mode=620",
        "ptmxmode=666",
        "noexec",
        "nosuid",
        "\nptmx",
    ] {
        ensure!(text.contains(word), "devpts has no {word}: {text:?}");
    }
    // An instance of its own holds no terminals of others.
    ensure!(
        !text.lines().any(|line| line == "0"),
        "the instance of devpts holds another's terminal: {text:?}"
    );
    passed()
}

fn mqueue(env: &Env) -> Result<Verdict> {
    let text = env.run_text(
        &env.script("grep -c ' /dev/mqueue mqueue' /proc/mounts; ls /dev/mqueue; echo end")?,
    )?;
    ensure!(text == "1\nend", "it printed {text:?}");
    passed()
}

fn cgroup(env: &Env) -> Result<Verdict> {
    // v1: one directory for each controller below a tmpfs; v2: the container's own group.
    let script = "cd /sys/fs/cgroup; if [ -e cgroup.controllers ]; then echo v2; \
                  else cd memory; echo v1; fi; grep -c '^1$' cgroup.procs; mkdir made 2>/dev/null && echo writable; exit 0";
    let text = env.run_text(&env.script(script)?)?;
    ensure!(
        ["v1\n1", "v2\n1"].contains(&text.as_str()),
        "the cgroup mount shows {text:?}"
    );
    passed()
}
