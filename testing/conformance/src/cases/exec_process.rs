//! `exec` with a process.json, and how far exec is bound by what binds the container.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::case::{Case, Verdict, case, passed, skipped};
use crate::container::Container;
use crate::environment::Env;
use crate::reaper::Exit;

/// The cases of this group.
pub const CASES: &[Case] = &[
    case("exec/process-json", process_json),
    case("exec/process-json-capabilities", process_capabilities),
    case("exec/process-json-rlimits", process_rlimits),
    case("exec/seccomp-is-enforced", seccomp),
    case("exec/no-new-privileges", no_new_privileges),
    case("exec/capabilities-of-container", capabilities),
    case("exec/malformed-process-json", malformed_process),
];

/// `exec` with a process.json made of `changes` over a plain process.
fn with_process<'r>(
    env: &Env,
    container: &Container<'r>,
    changes: Value,
) -> Result<crate::runtime::Call<'r>> {
    let mut process = json!({
        "terminal": false,
        "user": {"uid": 0, "gid": 0},
        "args": ["/bin/true"],
        "env": ["PATH=/bin", "FROM=process.json"],
        "cwd": "/"
    });
    if let (Value::Object(process), Value::Object(changes)) = (&mut process, changes) {
        process.extend(changes);
    }
    let file = env.directory("process")?.join("process.json");
    fs::write(&file, process.to_string())?;
    Ok(container
        .runtime()
        .call(["exec", "--process", &file.to_string_lossy(), &container.id]))
}

fn process_json(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    let script = "pwd; id -u; id -g; id -G; echo $FROM; exit 33";
    let changes = json!({
        "args": ["sh", "-c", script],
        "cwd": "/tmp",
        "user": {"uid": 1000, "gid": 1000, "additionalGids": [2000, 3000]}
    });
    let text = with_process(env, &container, changes)?
        .run()?
        .code(33)?
        .text();
    let lines: Vec<_> = text.lines().collect();
    ensure!(lines.len() == 5, "the output is {text:?}");
    ensure!(
        (lines[0], lines[1], lines[2]) == ("/tmp", "1000", "1000"),
        "the output is {text:?}"
    );
    let groups: Vec<_> = lines[3].split_whitespace().collect();
    ensure!(
        groups.contains(&"2000") && groups.contains(&"3000"),
        "the groups are {groups:?}"
    );
    ensure!(lines[4] == "process.json", "the variable is {:?}", lines[4]);
    passed()
}

fn process_capabilities(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    let set = json!(["CAP_CHOWN", "CAP_KILL"]);
    let changes = json!({
        "args": ["grep", "^Cap", "/proc/self/status"],
        "capabilities": {"bounding": set, "effective": set, "permitted": set}
    });
    let text = with_process(env, &container, changes)?.ok()?.text();
    for name in ["CapPrm", "CapEff", "CapBnd"] {
        // Bits 0 and 5 of linux/capability.h.
        ensure!(
            text.contains(&format!("{name}:\t0000000000000021")),
            "wanted chown and kill in {name}: {text}"
        );
    }
    passed()
}

fn process_rlimits(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    // Not that of descriptors: Go's own start changes it and puts it back, and runc sometimes loses the race against it.
    let changes = json!({
        "args": ["sh", "-c", "ulimit -St; ulimit -Ht"],
        "rlimits": [{"type": "RLIMIT_CPU", "soft": 123, "hard": 456}]
    });
    let text = with_process(env, &container, changes)?.ok()?.text();
    ensure!(text == "123\n456\n", "the limits are {text:?}");
    passed()
}

fn seccomp(env: &Env) -> Result<Verdict> {
    for no_new_privileges in [true, false] {
        let mut bundle = env.bundle()?;
        bundle
            .args(&["/bin/sleep", "100000"])
            .set("/process/noNewPrivileges", json!(no_new_privileges));
        bundle.set("/linux/seccomp", super::seccomp::deny_chmod());
        let container = env.start(&bundle)?;
        let text = container
            .exec_text("grep ^Seccomp: /proc/self/status; chmod 700 /tmp 2>&1 || echo denied")?;
        ensure!(
            text.contains("Seccomp:\t2") && text.ends_with("denied"),
            "seccomp is not enforced in exec with noNewPrivileges {no_new_privileges}: {text:?}"
        );
    }
    passed()
}

fn no_new_privileges(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    let text = container.exec_text("grep ^NoNewPrivs /proc/self/status")?;
    if text.ends_with('0') && env.is_reference("crun")? {
        return skipped("crun's exec without a process.json does not take noNewPrivileges over");
    }
    ensure!(
        text == "NoNewPrivs:\t1",
        "exec does not take noNewPrivileges over: {text:?}"
    );
    passed()
}

fn capabilities(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    bundle
        .args(&["/bin/sleep", "100000"])
        .capabilities(&["CAP_CHOWN"]);
    let container = env.start(&bundle)?;
    let text = container.exec_text("grep ^CapBnd /proc/self/status")?;
    ensure!(
        text == "CapBnd:\t0000000000000001",
        "exec has more than the container: {text:?}"
    );
    passed()
}

fn malformed_process(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    let file = env.dir.join("process.json");
    let path = file.to_string_lossy();
    let exec = || {
        container
            .runtime()
            .call(["exec", "--process", &path, &container.id])
            .run()
    };
    ensure!(
        exec()?.exit != Exit::Code(0),
        "an absent process.json was accepted"
    );
    for text in [
        "",
        "{",
        "{\"args\": 7, \"cwd\": \"/\"}",
        "{\"args\": [], \"cwd\": \"/\"}",
    ] {
        fs::write(&file, text)?;
        let finished = exec()?;
        ensure!(
            finished.exit != Exit::Code(0),
            "this process.json was accepted: {text:?}"
        );
        // crun says nothing about wrong types.
        let told = !finished.stderr.trim().is_empty() || env.is_reference("crun")?;
        ensure!(
            told,
            "this process.json was refused without a message: {text:?}"
        );
    }
    container.expect_status("running")?;
    passed()
}
