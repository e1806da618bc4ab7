//! `exec`: flags, streams, exit codes.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::case::{Case, Verdict, case, passed};
use crate::container::read_pid;
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
    case("exec/detach-pid-file", detach),
    case("exec/missing-command", missing_command),
    case("exec/not-executable", not_executable),
    case("exec/missing-cwd", missing_cwd),
    case("exec/in-stopped-refused", in_stopped),
    case("exec/in-created", in_created),
    case("exec/ended-with-container", ended_with_container),
    case("exec/container-outlives-exec", outlives),
];

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
