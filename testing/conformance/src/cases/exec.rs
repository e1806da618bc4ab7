//! `exec`: flags, process.json, streams, exit codes.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::case::{Case, Verdict, case, passed, skipped};
use crate::container::{Container, read_pid};
use crate::environment::Env;
use crate::pipes;
use crate::reaper::{self, Exit};

/// The cases of this group.
pub const CASES: &[Case] = &[
    case("exec/exit-codes", exit_codes),
    case("exec/streams", streams),
    case("exec/stdin-binary", stdin_binary),
    case("exec/flag-cwd", flag_cwd),
    case("exec/flag-env", flag_env),
    case("exec/flag-user", flag_user),
    case("exec/inherits-container-environment", inherits_environment),
    case("exec/same-namespaces", same_namespaces),
    case("exec/process-json", process_json),
    case("exec/process-json-capabilities", process_capabilities),
    case("exec/process-json-rlimits", process_rlimits),
    case("exec/detach-pid-file", detach),
    case("exec/missing-command", missing_command),
    case("exec/not-executable", not_executable),
    case("exec/missing-cwd", missing_cwd),
    case("exec/in-stopped-refused", in_stopped),
    case("exec/in-created", in_created),
    case("exec/seccomp-is-enforced", seccomp),
    case("exec/no-new-privileges", no_new_privileges),
    case("exec/capabilities-of-container", capabilities),
    case("exec/ended-with-container", ended_with_container),
    case("exec/malformed-process-json", malformed_process),
    case("exec/container-outlives-exec", outlives),
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

fn exit_codes(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    for code in [0, 1, 42, 255] {
        container.exec(&format!("exit {code}")).run()?.code(code)?;
    }
    container
        .exec("kill -KILL $$")
        .run()?
        .code(137)
        .context("an exec killed by KILL")?;
    passed()
}

fn streams(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    let (mut stdin, stdin_end) = pipes::input(env.deadline())?;
    let running = container
        .exec("read line; echo \"out $line\"; echo \"err $line\" >&2")
        .stdin(stdin_end)
        .spawn()?;
    stdin.line("word")?;
    let finished = running.wait()?.ok()?;
    ensure!(
        finished.text() == "out word\n",
        "stdout is {:?}",
        finished.text()
    );
    ensure!(
        finished.stderr == "err word\n",
        "stderr is {:?}",
        finished.stderr
    );
    passed()
}

fn stdin_binary(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    let (mut stdin, stdin_end) = pipes::input(env.deadline())?;
    let running = container
        .call(&["exec"], &["/bin/md5sum"])
        .stdin(stdin_end)
        .spawn()?;
    stdin.write(&vec![b'a'; 1_000_000])?;
    drop(stdin);
    let text = running.wait()?.ok()?.text();
    ensure!(
        text.starts_with("7707d6ae4e027c70eea2a935c2296f21"),
        "a million letters a sum up to {text:?}"
    );
    passed()
}

fn flag_cwd(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    let text = container
        .call(&["exec", "--cwd", "/home/user"], &["/bin/pwd"])
        .ok()?
        .text();
    ensure!(text == "/home/user\n", "pwd prints {text:?}");
    passed()
}

fn flag_env(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    let flags = ["exec", "--env", "ONE=1", "--env", "TWO=a b=c"];
    let text = container
        .call(&flags, &["/bin/sh", "-c", "echo \"$ONE/$TWO\""])
        .ok()?
        .text();
    ensure!(text == "1/a b=c\n", "the variables are {text:?}");
    passed()
}

fn flag_user(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    let text = container
        .call(
            &["exec", "--user", "1000:2000"],
            &["/bin/sh", "-c", "id -u; id -g"],
        )
        .ok()?
        .text();
    ensure!(text == "1000\n2000\n", "the ids are {text:?}");
    passed()
}

fn inherits_environment(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    bundle
        .args(&["/bin/sleep", "100000"])
        .push("/process/env", json!("FROM=config"));
    let container = env.start(&bundle)?;
    let text = container.exec_text("echo $FROM")?;
    ensure!(
        text == "config",
        "the variable of the container is {text:?} in exec"
    );
    passed()
}

fn same_namespaces(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    let text = container.exec_text(
        "for n in pid ipc uts mnt net; do readlink /proc/1/ns/$n; readlink /proc/self/ns/$n; done",
    )?;
    let links: Vec<_> = text.lines().collect();
    ensure!(links.len() == 10, "links are missing: {text:?}");
    for pair in links.chunks(2) {
        ensure!(
            pair[0] == pair[1],
            "exec is in {} while the container is in {}",
            pair[1],
            pair[0]
        );
    }
    let name = container.exec_text("tr '\\0' ' ' < /proc/1/cmdline")?;
    ensure!(name.starts_with("/bin/sleep"), "process 1 is {name:?}");
    passed()
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
    let changes = json!({
        "args": ["sh", "-c", "ulimit -Sn; ulimit -Hn"],
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 123, "hard": 456}]
    });
    let text = with_process(env, &container, changes)?.ok()?.text();
    ensure!(text == "123\n456\n", "the limits are {text:?}");
    passed()
}

fn detach(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    let file = env.dir.join("exec.pid");
    let (mut stdin, stdin_end) = pipes::input(env.deadline())?;
    let (mut stdout, stdout_end) = pipes::output(env.deadline())?;
    container
        .call(
            &["exec", "--detach", "--pid-file", &file.to_string_lossy()],
            &[],
        )
        .args(&["/bin/sh", "-c", "echo up; read line; exit 21"])
        .stdin(stdin_end)
        .stdout(stdout_end)
        .ok()?;
    let pid = read_pid(&file)?;
    ensure!(
        pid != container.pid,
        "the exec has the pid of its container"
    );
    ensure!(stdout.line()? == "up", "no output");
    ensure!(
        reaper::stat(pid).is_some_and(|process| process.is_alive()),
        "the pid in the file is dead"
    );
    stdin.line("go")?;
    let exit = reaper::wait(pid, env.deadline())?;
    ensure!(exit == Exit::Code(21), "the exec ended with {exit}");
    container.expect_status("running")?;
    passed()
}

fn missing_command(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    let message = [
        "executable file not found in $path",
        "no such file or directory",
    ];
    for command in ["no-such-command", "/bin/no-such-command"] {
        let finished = container.call(&["exec"], &[command]).run()?;
        ensure!(
            finished.stderr.contains(command),
            "the message does not name {command}: {}",
            finished.stderr
        );
        finished.refused(&message)?;
    }
    container.expect_status("running")?;
    passed()
}

fn not_executable(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    for command in ["/etc/passwd", "/etc"] {
        container.call(&["exec"], &[command]).run()?.refused(&[
            "permission denied",
            "not permitted",
            "is a directory",
            command,
        ])?;
    }
    passed()
}

fn missing_cwd(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    let finished = container
        .call(&["exec", "--cwd", "/no/such/place"], &["/bin/true"])
        .run()?;
    finished.refused(&["/no/such/place", "cwd", "chdir"])?;
    passed()
}

fn in_stopped(env: &Env) -> Result<Verdict> {
    let container = env.start(&env.bundle()?)?;
    container.expect_exit(Exit::Code(0))?;
    container.reach_status("stopped")?;
    container
        .exec("true")
        .run()?
        .refused(&["stopped", "not running", &container.id])?;
    passed()
}

fn in_created(env: &Env) -> Result<Verdict> {
    let container = env.create(&env.bundle()?)?;
    // Podman and containerd allow it: the namespaces exist already.
    let text = container.exec_text("echo early")?;
    ensure!(
        text == "early",
        "exec in a created container printed {text:?}"
    );
    container.expect_status("created")?;
    passed()
}

fn seccomp(env: &Env) -> Result<Verdict> {
    for no_new_privileges in [true, false] {
        let mut bundle = env.bundle()?;
        bundle
            .args(&["/bin/sleep", "100000"])
            .set("/process/noNewPrivileges", json!(no_new_privileges));
        bundle.set("/linux/seccomp", super::security::deny_chmod());
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

fn ended_with_container(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    let (mut stdout, end) = pipes::output(env.deadline())?;
    let running = container
        .exec("echo up; exec sleep 100000")
        .stdout(end)
        .spawn()?;
    ensure!(stdout.line()? == "up", "no output");
    container.kill("KILL")?;
    let finished = running.wait()?;
    ensure!(
        finished.exit != Exit::Code(0),
        "an exec that was killed with its container ended with {}",
        finished.exit
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

fn outlives(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    container
        .exec("sleep 100000 </dev/null >/dev/null 2>&1 & exit 0")
        .ok()?;
    let text = container.exec_text("ps -o args | grep -c '[s]leep 100000'")?;
    ensure!(
        text == "2",
        "{text} sleeping processes instead of the container's and the one left by exec"
    );
    container.expect_status("running")?;
    passed()
}
