//! Capabilities, no_new_privs, seccomp, rlimits, OOM score.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::case::{Case, Verdict, case, passed, skipped};
use crate::environment::Env;

/// The cases of this group.
pub const CASES: &[Case] = &[
    case("security/capability-sets", capability_sets),
    case("security/ambient-capabilities", ambient),
    case("security/no-capabilities", no_capabilities),
    case("security/capability-by-effect", capability_effect),
    case("security/unknown-capability", unknown_capability),
    case("security/no-new-privileges", no_new_privileges),
    case("security/seccomp-errno", seccomp_errno),
    case("security/seccomp-kill", seccomp_kill),
    case("security/seccomp-argument-filter", seccomp_arguments),
    case(
        "security/seccomp-without-no-new-privileges",
        seccomp_privileged,
    ),
    case("security/seccomp-default-deny", seccomp_default_deny),
    case("security/rlimits", rlimits),
    case("security/rlimit-unknown-refused", unknown_rlimit),
    case("security/oom-score", oom_score),
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

/// The line of `/proc/self/status` that begins with `name`.
fn status_line(text: &str, name: &str) -> Result<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .with_context(|| format!("no {name} in {text}"))?;
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16)
        .with_context(|| format!("{name}{line}"))
}

fn capability_sets(env: &Env) -> Result<Verdict> {
    // Bits of linux/capability.h: chown 0, kill 5, net_bind_service 10.
    let mut bundle = env.bundle()?;
    bundle.args(&["/bin/grep", "^Cap", "/proc/self/status"]);
    bundle.set(
        "/process/capabilities",
        json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
            "permitted": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_CHOWN"],
            "inheritable": ["CAP_NET_BIND_SERVICE"]
        }),
    );
    // As a user other than root, exec would clear the permitted set; as root it takes the bounding set.
    let text = env.run_text(&bundle)?;
    let bounding = (1 << 0) | (1 << 5) | (1 << 10);
    ensure!(
        status_line(&text, "CapBnd")? == bounding,
        "the bounding set differs:\n{text}"
    );
    ensure!(
        status_line(&text, "CapInh")? == 1 << 10,
        "the inheritable set differs:\n{text}"
    );
    ensure!(
        status_line(&text, "CapAmb")? == 0,
        "the ambient set differs:\n{text}"
    );
    ensure!(
        status_line(&text, "CapPrm")? & !bounding == 0,
        "the permitted set exceeds the bounding set:\n{text}"
    );
    passed()
}

fn ambient(env: &Env) -> Result<Verdict> {
    let names = ["CAP_NET_BIND_SERVICE", "CAP_CHOWN"];
    let mut bundle = env.bundle()?;
    bundle.args(&["/bin/grep", "^Cap", "/proc/self/status"]);
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    bundle.set(
        "/process/capabilities",
        json!({"bounding": names, "permitted": names, "effective": names, "inheritable": names, "ambient": names}),
    );
    let text = env.run_text(&bundle)?;
    for set in ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"] {
        ensure!(
            status_line(&text, set)? == (1 << 10) | 1,
            "{set} of a user with ambient capabilities differs:\n{text}"
        );
    }
    passed()
}

fn no_capabilities(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    bundle
        .args(&["/bin/grep", "^Cap", "/proc/self/status"])
        .set("/process/capabilities", json!({}));
    let text = env.run_text(&bundle)?;
    for set in ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"] {
        ensure!(status_line(&text, set)? == 0, "{set} is not empty:\n{text}");
    }
    passed()
}

fn capability_effect(env: &Env) -> Result<Verdict> {
    let script =
        "touch /tmp/file; chown 1000:1000 /tmp/file 2>/dev/null && echo owned || echo refused";
    let mut bundle = env.script(script)?;
    bundle.capabilities(&["CAP_CHOWN"]);
    ensure!(
        env.run_text(&bundle)? == "owned",
        "chown fails with CAP_CHOWN"
    );
    bundle.capabilities(&["CAP_KILL"]);
    ensure!(
        env.run_text(&bundle)? == "refused",
        "chown works without CAP_CHOWN"
    );
    let mut bundle = env.script("hostname changed 2>/dev/null && echo renamed || echo refused")?;
    ensure!(
        env.run_text(&bundle)? == "refused",
        "the host name changes without CAP_SYS_ADMIN"
    );
    bundle.capabilities(&["CAP_SYS_ADMIN"]);
    ensure!(
        env.run_text(&bundle)? == "renamed",
        "the host name does not change with CAP_SYS_ADMIN"
    );
    passed()
}

fn unknown_capability(env: &Env) -> Result<Verdict> {
    // runc and crun ignore what this kernel or runtime does not know, with a warning: newer engines name
    // newer capabilities. Either answer is fine, but nothing may be granted.
    let mut bundle = env.bundle()?;
    bundle
        .args(&["/bin/grep", "^CapBnd", "/proc/self/status"])
        .capabilities(&["CAP_CHOWN", "CAP_NOT_INVENTED"]);
    let finished = env.run(&bundle)?;
    if finished.exit == crate::reaper::Exit::Code(0) {
        ensure!(
            status_line(&finished.text(), "CapBnd")? == 1,
            "the bounding set is {}",
            finished.text()
        );
    } else {
        finished.refused(&["CAP_NOT_INVENTED", "capabilit"])?;
    }
    passed()
}

fn no_new_privileges(env: &Env) -> Result<Verdict> {
    for (value, wanted) in [(json!(true), "1"), (json!(false), "0"), (Value::Null, "0")] {
        let mut bundle = env.bundle()?;
        bundle.args(&["/bin/grep", "^NoNewPrivs", "/proc/self/status"]);
        match value {
            Value::Null => bundle.remove("/process/noNewPrivileges"),
            ref set => bundle.set("/process/noNewPrivileges", set.clone()),
        };
        let text = env.run_text(&bundle)?;
        ensure!(
            text == format!("NoNewPrivs:\t{wanted}"),
            "noNewPrivileges {value} gives {text:?}"
        );
    }
    passed()
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

fn rlimits(env: &Env) -> Result<Verdict> {
    let mut bundle =
        env.script("grep -E '^Max (open files|core|stack|file size|processes)' /proc/self/limits")?;
    bundle.set(
        "/process/rlimits",
        json!([
            {"type": "RLIMIT_NOFILE", "soft": 200, "hard": 300},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 4096},
            {"type": "RLIMIT_STACK", "soft": 4_194_304, "hard": 8_388_608},
            {"type": "RLIMIT_FSIZE", "soft": 1_048_576, "hard": 2_097_152},
            {"type": "RLIMIT_NPROC", "soft": 500, "hard": 600}
        ]),
    );
    let text = env.run_text(&bundle)?;
    for wanted in [
        ["open files", "200", "300"],
        ["core file size", "0", "4096"],
        ["stack size", "4194304", "8388608"],
        ["file size", "1048576", "2097152"],
        ["processes", "500", "600"],
    ] {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("Max {}", wanted[0])));
        let fields: Vec<_> = line
            .unwrap_or_default()
            .split_whitespace()
            .take(2)
            .collect();
        ensure!(fields == wanted[1..], "wanted {wanted:?} in\n{text}");
    }
    // And by effect: a file may not grow past the limit.
    bundle
        .script("dd if=/dev/zero of=/tmp/file bs=65536 count=64 2>/dev/null; stat -c %s /tmp/file");
    let text = env.run_text(&bundle)?;
    ensure!(text.ends_with("1048576"), "a file grew to {text} bytes");
    passed()
}

fn unknown_rlimit(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    bundle.set(
        "/process/rlimits",
        json!([{"type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1}]),
    );
    env.refuses(&bundle, &["RLIMIT_NONSENSE", "rlimit"])?;
    env.nothing_left()?;
    passed()
}

fn oom_score(env: &Env) -> Result<Verdict> {
    let own: i32 = std::fs::read_to_string("/proc/self/oom_score_adj")?
        .trim()
        .parse()?;
    let wanted = 500;
    if own > wanted && !env.vm {
        return skipped(format!(
            "this process has oom_score_adj {own} and may not go below it"
        ));
    }
    let mut bundle = env.bundle()?;
    bundle
        .args(&["/bin/cat", "/proc/self/oom_score_adj"])
        .set("/process/oomScoreAdj", json!(wanted));
    let text = env.run_text(&bundle)?;
    ensure!(text == wanted.to_string(), "oom_score_adj is {text:?}");
    passed()
}
