//! Seccomp profiles.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::case::{Case, Verdict, case, passed};
use crate::environment::Env;

/// The cases of this group.
pub const CASES: &[Case] = &[
    case("security/seccomp-errno", seccomp_errno),
    case("security/seccomp-kill", seccomp_kill),
    case("security/seccomp-argument-filter", seccomp_arguments),
    case(
        "security/seccomp-without-no-new-privileges",
        seccomp_privileged,
    ),
    case("security/seccomp-default-deny", seccomp_default_deny),
];

/// A profile that answers 28 (ENOSPC) to every way of changing a file's mode.
pub fn deny_chmod() -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{
            "names": ["chmod", "fchmod", "fchmodat", "fchmodat2"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 28
        }]
    })
}

const TRY_CHMOD: &str = "grep ^Seccomp: /proc/self/status; chmod 700 /tmp 2>&1; echo code $?";

fn seccomp_errno(env: &Env) -> Result<Verdict> {
    let mut bundle = env.script(TRY_CHMOD)?;
    bundle.set("/linux/seccomp", deny_chmod());
    let text = env.run_text(&bundle)?;
    ensure!(
        text.starts_with("Seccomp:\t2\n"),
        "no filter is loaded: {text:?}"
    );
    ensure!(
        text.contains("No space left on device"),
        "chmod does not fail with the profile's errno: {text:?}"
    );
    bundle.remove("/linux/seccomp");
    let text = env.run_text(&bundle)?;
    ensure!(text == "Seccomp:\t0\ncode 0", "without a profile: {text:?}");
    passed()
}

fn seccomp_kill(env: &Env) -> Result<Verdict> {
    let mut bundle = env.script("sh -c 'chmod 700 /tmp'; echo code $?")?;
    let mut profile = deny_chmod();
    profile["syscalls"][0] = json!({"names": ["chmod", "fchmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_KILL_PROCESS"});
    bundle.set("/linux/seccomp", profile);
    // 31 is SIGSYS; the shell may print a line about it first.
    let text = env.run_text(&bundle)?;
    ensure!(text.ends_with("code 159"), "chmod is not killed: {text:?}");
    passed()
}

fn seccomp_arguments(env: &Env) -> Result<Verdict> {
    // Only mode 0700 (the second argument of chmod) is refused.
    let rule = |name: &str, index: u32| {
        json!({
            "names": [name],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 1,
            "args": [{"index": index, "value": 0o700, "op": "SCMP_CMP_EQ"}]
        })
    };
    let mut profile = deny_chmod();
    profile["syscalls"] = json!([rule("chmod", 1), rule("fchmodat", 2)]);
    let mut bundle =
        env.script("chmod 755 /tmp && echo fine; chmod 700 /tmp 2>/dev/null || echo refused")?;
    bundle.set("/linux/seccomp", profile);
    let text = env.run_text(&bundle)?;
    ensure!(text == "fine\nrefused", "it printed {text:?}");
    passed()
}

fn seccomp_privileged(env: &Env) -> Result<Verdict> {
    for no_new_privileges in [Some(false), None] {
        let mut bundle = env.script(TRY_CHMOD)?;
        bundle
            .remove("/process/noNewPrivileges")
            .set("/linux/seccomp", deny_chmod());
        if let Some(value) = no_new_privileges {
            bundle.set("/process/noNewPrivileges", json!(value));
        }
        let text = env.run_text(&bundle)?;
        ensure!(
            text.starts_with("Seccomp:\t2") && text.contains("No space left"),
            "no_new_privs {no_new_privileges:?}: {text:?}"
        );
    }
    passed()
}

fn seccomp_default_deny(env: &Env) -> Result<Verdict> {
    // A default of refusal with an allow list, as Docker's and Podman's profiles have: mkdir is not on it.
    let allowed = [
        "read",
        "write",
        "open",
        "openat",
        "close",
        "stat",
        "fstat",
        "lstat",
        "newfstatat",
        "statx",
        "mmap",
        "munmap",
        "mprotect",
        "mremap",
        "brk",
        "rt_sigaction",
        "rt_sigprocmask",
        "rt_sigreturn",
        "execve",
        "exit",
        "exit_group",
        "wait4",
        "clone",
        "clone3",
        "fork",
        "vfork",
        "arch_prctl",
        "set_tid_address",
        "set_robust_list",
        "rseq",
        "prlimit64",
        "readlink",
        "readlinkat",
        "getrandom",
        "getuid",
        "geteuid",
        "getgid",
        "getegid",
        "getpid",
        "getppid",
        "getcwd",
        "ioctl",
        "fcntl",
        "dup",
        "dup2",
        "futex",
        "prctl",
        "setgroups",
        "setgid",
        "setuid",
        "setresuid",
        "setresgid",
        "capset",
        "capget",
        "chdir",
        "getdents64",
        "uname",
        "tgkill",
        "gettid",
        "access",
        "faccessat",
        "faccessat2",
        "sigaltstack",
        "epoll_ctl",
        "epoll_pwait",
        "epoll_create1",
        "nanosleep",
        "pread64",
        "lseek",
        "madvise",
        "sched_yield",
        "sched_getaffinity",
        "fstatfs",
        "statfs",
        "umask",
        "close_range",
        "writev",
        "poll",
        "ppoll",
        "pipe",
        "pipe2",
        "dup3",
        "keyctl",
        "getpgrp",
        "setpgid",
        "setsid",
        "sysinfo",
        "time",
        "clock_gettime",
        "clock_nanosleep",
        "openat2",
        "eventfd2",
        "kill",
        "select",
        "pselect6",
        "restart_syscall",
    ];
    let mut bundle =
        env.script("mkdir /tmp/new 2>/dev/null && echo made || echo refused; echo still here")?;
    bundle.set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [{"names": allowed.as_slice(), "action": "SCMP_ACT_ALLOW"}]
        }),
    );
    let text = env.run_text(&bundle)?;
    ensure!(text == "refused\nstill here", "it printed {text:?}");
    passed()
}
