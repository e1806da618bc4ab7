//! Capabilities, no_new_privs, rlimits, OOM score.

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
    case("security/rlimits", rlimits),
    case("security/rlimit-unknown-refused", unknown_rlimit),
    case("security/oom-score", oom_score),
];

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
