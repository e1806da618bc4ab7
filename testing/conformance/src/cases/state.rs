//! What `state`, the pid file and the exit status tell an engine.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::case::{Case, Verdict, case, passed};
use crate::container::pid_file_of;
use crate::environment::Env;
use crate::reaper::{self, Exit};

/// The cases of this group.
pub const CASES: &[Case] = &[
    case("state/fields", fields),
    case("state/annotations", annotations),
    case("state/created-time", created_time),
    case("state/pid-lives-until-the-end", pid_lives),
    case("state/pid-file-has-plain-number", pid_file),
    case("state/exit-codes-through-pid-file", exit_codes),
    case("state/death-by-signal-through-pid-file", death_by_signal),
    case("state/killed-while-created", killed_while_created),
    case("state/foreground-exit-codes", foreground_codes),
];

fn fields(env: &Env) -> Result<Verdict> {
    let bundle = env.script("read line")?;
    let mut container = env.create(&bundle)?;
    let check = |wanted: &str, pid: Option<i32>| -> Result<()> {
        let state = container.call(&["state"], &[]).ok()?.json()?;
        let version = state["ociVersion"]
            .as_str()
            .context("ociVersion is missing")?;
        ensure!(version.starts_with("1."), "ociVersion is {version:?}");
        ensure!(
            state["id"] == container.id.as_str(),
            "id is {}",
            state["id"]
        );
        ensure!(
            state["status"] == wanted,
            "status is {}, not {wanted:?}",
            state["status"]
        );
        ensure!(
            state["bundle"] == bundle.path.to_string_lossy().as_ref(),
            "bundle is {}",
            state["bundle"]
        );
        match pid {
            Some(pid) => ensure!(state["pid"] == pid, "pid is {}, not {pid}", state["pid"]),
            None => ensure!(
                state["pid"].is_null() || state["pid"] == 0,
                "pid of a stopped one is {}",
                state["pid"]
            ),
        }
        Ok(())
    };
    check("created", Some(container.pid))?;
    container.start()?;
    check("running", Some(container.pid))?;
    drop(container.stdin.take());
    container.wait()?;
    container.reach_status("stopped")?;
    let state = container.state()?;
    ensure!(
        state["pid"].is_null() || state["pid"] == 0,
        "the pid of a stopped container is {}",
        state["pid"]
    );
    passed()
}

fn annotations(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    bundle.set(
        "/annotations",
        json!({"com.example.key": "a value", "com.example.utf8": "grüße"}),
    );
    let container = env.create(&bundle)?;
    let annotations = container.state()?["annotations"].clone();
    ensure!(
        annotations["com.example.key"] == "a value",
        "annotations are {annotations}"
    );
    ensure!(
        annotations["com.example.utf8"] == "grüße",
        "annotations are {annotations}"
    );
    passed()
}

fn created_time(env: &Env) -> Result<Verdict> {
    let container = env.create(&env.bundle()?)?;
    let state = container.state()?;
    let created = state["created"].as_str().context("created is missing")?;
    // RFC 3339: engines parse it.
    let shape: String = created
        .chars()
        .take(19)
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    ensure!(shape == "0000-00-00T00:00:00", "created is {created:?}");
    ensure!(
        created.ends_with('Z') || created.contains('+'),
        "created has no time zone: {created:?}"
    );
    let rootfs = state["rootfs"].as_str().context("rootfs is missing")?;
    ensure!(rootfs.ends_with("rootfs"), "rootfs is {rootfs:?}");
    passed()
}

fn pid_lives(env: &Env) -> Result<Verdict> {
    let mut container = env.create(&env.script("echo up; read line; exit 3")?)?;
    ensure!(
        reaper::stat(container.pid).is_some_and(|it| it.is_alive()),
        "the pid of a created container is dead"
    );
    container.start()?;
    ensure!(container.stdout.line()? == "up", "no output");
    ensure!(
        reaper::stat(container.pid).is_some_and(|it| it.is_alive()),
        "the pid of a running container is dead"
    );
    drop(container.stdin.take());
    container.expect_exit(Exit::Code(3))?;
    passed()
}

fn pid_file(env: &Env) -> Result<Verdict> {
    let bundle = env.bundle()?;
    let container = env.create(&bundle)?;
    let text = std::fs::read_to_string(pid_file_of(&bundle.path, &container.id))?;
    ensure!(
        text == container.pid.to_string(),
        "the pid file holds {text:?}: engines parse all of it as a number"
    );
    ensure!(
        container.state()?["pid"] == container.pid,
        "the state has another pid than the pid file"
    );
    passed()
}

fn exit_codes(env: &Env) -> Result<Verdict> {
    for code in [0, 1, 42, 126, 127, 128, 137, 255] {
        let container = env.start(&env.script(&format!("exit {code}"))?)?;
        container.expect_exit(Exit::Code(code))?;
        container
            .delete()
            .with_context(|| format!("after exit code {code}"))?;
    }
    passed()
}

fn death_by_signal(env: &Env) -> Result<Verdict> {
    // PID 1 of a pid namespace is deaf to signals without a handler, but not to KILL from outside.
    let container = env.sleeper()?;
    container.kill("KILL")?;
    let exit = container.wait()?;
    ensure!(exit.shell_code() == 137, "after kill KILL: {exit}");
    // The shell as PID 1 reports the death of its child.
    let container = env.start(&env.script("sh -c 'kill -TERM $$'; exit $?")?)?;
    container.expect_exit(Exit::Code(143))?;
    passed()
}

fn killed_while_created(env: &Env) -> Result<Verdict> {
    let container = env.create(&env.bundle()?)?;
    container.kill("KILL")?;
    let exit = container.wait()?;
    ensure!(
        exit.shell_code() == 137,
        "a created container killed by KILL: {exit}"
    );
    container.reach_status("stopped")?;
    container.delete()?;
    env.nothing_left()?;
    passed()
}

fn foreground_codes(env: &Env) -> Result<Verdict> {
    for code in [0, 1, 42, 255] {
        env.run(&env.script(&format!("exit {code}"))?)?.code(code)?;
    }
    env.run(&env.script("sh -c 'kill -KILL $$'; exit $?")?)?
        .code(137)?;
    passed()
}
