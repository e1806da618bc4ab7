//! `pause`, `resume`, `ps`, `events`, `spec` and `features`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::case::{Case, Verdict, case, passed, skipped};
use crate::environment::Env;
use crate::reaper::Exit;

/// The cases of this group.
pub const CASES: &[Case] = &[
    case("pause/stops-and-continues", pause_resume),
    case("pause/exec-refused", exec_in_paused),
    case("pause/delete-force", delete_paused),
    case("pause/resume-of-running-refused", resume_running),
    case("ps/json-and-table", ps),
    case("events/stats-once", events_stats),
    case("events/stream-ends-with-container", events_stream),
    case("spec/writes-a-configuration-that-runs", spec),
    case("features/json", features),
];

fn pause_resume(env: &Env) -> Result<Verdict> {
    let mut container =
        env.start(&env.script("n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.05; done")?)?;
    container.stdout.until("tick 3\n")?;
    container.call(&["pause"], &[]).ok()?;
    container.expect_status("paused")?;
    // What was on the way arrives; then a process that makes progress would show it many times over.
    container
        .stdout
        .fall_silent(Duration::from_secs(1))
        .context("a paused process goes on")?;
    container.expect_status("paused")?;
    container.call(&["resume"], &[]).ok()?;
    container.expect_status("running")?;
    container
        .stdout
        .until("tick ")
        .context("a resumed process does not go on")?;
    passed()
}

fn exec_in_paused(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    container.call(&["pause"], &[]).ok()?;
    container
        .exec("true")
        .within(Duration::from_secs(30))
        .run()?
        .refused(&["paused"])?;
    container.call(&["resume"], &[]).ok()?;
    container.exec_text("true")?;
    passed()
}

fn delete_paused(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    container.call(&["pause"], &[]).ok()?;
    container.call(&["delete", "--force"], &[]).ok()?;
    env.nothing_left()?;
    passed()
}

fn resume_running(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    let finished = container.call(&["resume"], &[]).run()?;
    if finished.exit == Exit::Code(0) && env.is_reference("crun")? {
        return skipped("crun resumes what is not paused without a word");
    }
    finished.refused(&["not paused", "running", &container.id])?;
    container.expect_status("running")?;
    passed()
}

fn ps(env: &Env) -> Result<Verdict> {
    let mut container = env.start(&env.script("sleep 100000 & echo ready; wait")?)?;
    ensure!(container.stdout.line()? == "ready", "no output");
    let json = container
        .call(&["ps", "--format", "json"], &[])
        .ok()?
        .json()?;
    let pids = json
        .as_array()
        .context("`ps --format json` prints no array")?;
    // Engines look them up on the host. The container's processes may have fewer there, but never somebody else's.
    let pid = container.state()?["pid"].clone();
    ensure!(
        pids.contains(&pid) && pids.len() <= 2,
        "`ps` shows {json}, and the container's pid is {pid}"
    );
    let table = container.call(&["ps"], &[]).ok()?.text();
    ensure!(
        table
            .lines()
            .next()
            .is_some_and(|head| head.contains("PID")),
        "the table has no head: {table:?}"
    );
    ensure!(
        table.lines().count() == 3,
        "the table does not show two processes: {table:?}"
    );
    passed()
}

fn events_stats(env: &Env) -> Result<Verdict> {
    if !env.has_command("events")? {
        return skipped("the runtime has no command `events`");
    }
    let container = env.sleeper()?;
    container.exec_text("md5sum /bin/busybox")?;
    let json = container
        .call(&["events", "--stats"], &[])
        .within(Duration::from_secs(30))
        .ok()?
        .json()?;
    ensure!(
        json["type"] == "stats" && json["id"] == container.id.as_str(),
        "type and id are {json}"
    );
    let number = |pointer: &str| {
        json.pointer(pointer)
            .and_then(Value::as_u64)
            .with_context(|| format!("no {pointer} in {json}"))
    };
    ensure!(
        number("/data/cpu/usage/total")? > 0,
        "no processor time was used: {json}"
    );
    ensure!(
        number("/data/memory/usage/usage")? > 0,
        "no memory is used: {json}"
    );
    ensure!(
        number("/data/pids/current")? >= 1,
        "there are no processes: {json}"
    );
    passed()
}

fn events_stream(env: &Env) -> Result<Verdict> {
    if !env.has_command("events")? {
        return skipped("the runtime has no command `events`");
    }
    let container = env.sleeper()?;
    let (mut stdout, end) = crate::pipes::output(env.deadline())?;
    let running = container
        .call(&["events", "--interval", "1s"], &[])
        .stdout(end)
        .spawn()?;
    for _ in 0..2 {
        let event: Value =
            serde_json::from_str(&stdout.line()?).context("an event is no JSON on one line")?;
        ensure!(event["type"] == "stats", "the event is {event}");
    }
    container.kill("KILL")?;
    container.expect_exit(Exit::Signal(9))?;
    // runc's ends when the cgroup is gone.
    container.call(&["delete", "--force"], &[]).ok()?;
    running
        .wait()
        .context("`events` does not end with its container")?;
    passed()
}

fn spec(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    env.runtime.call(["spec"]).dir(&bundle.path).ok()?;
    let config: Value = serde_json::from_slice(&fs::read(bundle.path.join("config.json"))?)?;
    for (pointer, wanted) in [
        ("/root/path", json!("rootfs")),
        ("/process/cwd", json!("/")),
        ("/process/args/0", json!("sh")),
    ] {
        ensure!(
            config.pointer(pointer) == Some(&wanted),
            "{pointer} is {:?}",
            config.pointer(pointer)
        );
    }
    ensure!(
        config["ociVersion"]
            .as_str()
            .is_some_and(|version| version.starts_with("1.")),
        "no ociVersion"
    );
    bundle.replace(config);
    bundle
        .set("/process/terminal", json!(false))
        .script("echo it runs");
    ensure!(
        env.run_text(&bundle)? == "it runs",
        "the configuration does not run"
    );
    let again = env.runtime.call(["spec"]).dir(&bundle.path).run()?;
    if again.exit == Exit::Code(0) && env.is_reference("crun")? {
        return skipped("crun overwrites an existing config.json");
    }
    again.refused(&["config.json"])?;
    passed()
}

fn features(env: &Env) -> Result<Verdict> {
    if !env.has_command("features")? {
        return skipped("the runtime has no command `features`");
    }
    let json = env.runtime.call(["features"]).ok()?.json()?;
    ensure!(
        json["ociVersionMin"].is_string() && json["ociVersionMax"].is_string(),
        "no versions in {json}"
    );
    for pointer in [
        "/hooks",
        "/mountOptions",
        "/linux/namespaces",
        "/linux/capabilities",
    ] {
        ensure!(
            json.pointer(pointer).is_some_and(Value::is_array),
            "{pointer} is no array in {json}"
        );
    }
    ensure!(
        json.pointer("/linux/seccomp/enabled") == Some(&json!(true)),
        "seccomp is not enabled in {json}"
    );
    passed()
}
