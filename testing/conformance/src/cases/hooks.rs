//! Lifecycle hooks: when they run, what they are given, what their failure does.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::case::{Case, Verdict, case, differs, passed, skipped};
use crate::environment::Env;
use crate::reaper::Exit;

/// The cases of this group.
pub const CASES: &[Case] = &[
    case("hooks/order", order),
    case("hooks/poststart-after-start", poststart_after_start),
    case("hooks/state-on-stdin", state_on_stdin),
    case("hooks/arguments-and-environment", arguments),
    case("hooks/input-left-unread", unread_input),
    case("hooks/pid-is-live", pid_is_live),
    case(
        "hooks/failing-create-runtime-aborts",
        failing_create_runtime,
    ),
    case("hooks/failing-prestart-aborts", failing_prestart),
    case("hooks/failing-poststop-is-no-error", failing_poststop),
    case("hooks/missing-program-aborts", missing_program),
    case("hooks/timeout", timeout),
    case("hooks/start-container-runs-inside", start_container),
    differs(
        "hooks/create-container-sees-container-mounts",
        "its program is a host file while its mount namespace is the guest's: it must be refused by name, not dropped",
        create_container,
    ),
];

/// A hook that runs `script` in the host's shell.
fn hook(dir: &Path, name: &str, script: &str) -> Result<Value> {
    let path = dir.join(format!("{name}.sh"));
    fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
    fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    Ok(json!({"path": path, "args": [name], "env": ["PATH=/usr/bin:/bin"]}))
}

/// A hook that appends its name to the file `log`.
fn logging(dir: &Path, name: &str) -> Result<Value> {
    hook(
        dir,
        name,
        &format!(
            "cat > /dev/null; echo {name} >> {}",
            dir.join("log").display()
        ),
    )
}

fn logged(dir: &Path) -> Vec<String> {
    fs::read_to_string(dir.join("log"))
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn order(env: &Env) -> Result<Verdict> {
    let dir = env.directory("hooks")?;
    let mut bundle = env.script("read line; exit 0")?;
    for (kind, name) in [
        ("prestart", "prestart"),
        ("createRuntime", "createRuntime"),
        ("poststart", "poststart"),
        ("poststop", "poststop"),
    ] {
        bundle.push(&format!("/hooks/{kind}"), logging(&dir, name)?);
    }
    bundle.push("/hooks/poststart", logging(&dir, "poststart-2")?);
    let mut container = env.create(&bundle)?;
    ensure!(
        logged(&dir).starts_with(&["prestart".into(), "createRuntime".into()]),
        "after create: {:?}",
        logged(&dir)
    );
    container.start()?;
    let started = ["prestart", "createRuntime", "poststart", "poststart-2"];
    ensure!(logged(&dir) == started, "after start: {:?}", logged(&dir));
    drop(container.stdin.take());
    container.expect_exit(Exit::Code(0))?;
    container.reach_status("stopped")?;
    container.delete()?;
    ensure!(
        logged(&dir) == [&started[..], &["poststop"]].concat(),
        "after delete: {:?}",
        logged(&dir)
    );
    passed()
}

fn poststart_after_start(env: &Env) -> Result<Verdict> {
    let dir = env.directory("hooks")?;
    let mut bundle = env.script("read line; exit 0")?;
    bundle.push("/hooks/poststart", logging(&dir, "poststart")?);
    let container = env.create(&bundle)?;
    if logged(&dir) == ["poststart"] && env.is_reference("runc")? {
        return skipped("runc runs poststart hooks at the end of create, not of start");
    }
    ensure!(logged(&dir).is_empty(), "after create: {:?}", logged(&dir));
    container.start()?;
    ensure!(
        logged(&dir) == ["poststart"],
        "after start: {:?}",
        logged(&dir)
    );
    passed()
}

fn state_on_stdin(env: &Env) -> Result<Verdict> {
    let dir = env.directory("hooks")?;
    let mut bundle = env.script("read line; exit 0")?;
    bundle.set("/annotations", json!({"com.example.key": "for hooks"}));
    let kinds = [
        ("createRuntime", &["creating", "created"][..]),
        ("poststart", &["created", "running"]),
        ("poststop", &["stopped"]),
    ];
    for (kind, _) in kinds {
        let script = format!("cat > {}", dir.join(kind).display());
        bundle.push(
            &format!("/hooks/{kind}"),
            hook(&dir, &format!("hook-{kind}"), &script)?,
        );
    }
    let mut container = env.create(&bundle)?;
    container.start()?;
    drop(container.stdin.take());
    container.expect_exit(Exit::Code(0))?;
    container.reach_status("stopped")?;
    container.delete()?;
    for (kind, statuses) in kinds {
        let text = fs::read_to_string(dir.join(kind))
            .with_context(|| format!("the {kind} hook wrote nothing"))?;
        let state: Value =
            serde_json::from_str(&text).with_context(|| format!("{kind} got {text:?}"))?;
        ensure!(
            state["id"] == container.id.as_str(),
            "{kind}: id is {}",
            state["id"]
        );
        ensure!(
            state["ociVersion"].is_string(),
            "{kind}: ociVersion is {}",
            state["ociVersion"]
        );
        ensure!(
            state["bundle"] == bundle.path.to_string_lossy().as_ref(),
            "{kind}: bundle is {}",
            state["bundle"]
        );
        ensure!(
            statuses.iter().any(|status| state["status"] == *status),
            "{kind}: status is {}",
            state["status"]
        );
        ensure!(
            state["annotations"]["com.example.key"] == "for hooks",
            "{kind}: annotations are {}",
            state["annotations"]
        );
        if kind != "poststop" {
            ensure!(
                state["pid"] == container.pid,
                "{kind}: pid is {}, not {}",
                state["pid"],
                container.pid
            );
        }
    }
    passed()
}

fn arguments(env: &Env) -> Result<Verdict> {
    let dir = env.directory("hooks")?;
    let mut bundle = env.bundle()?;
    let file = dir.join("seen");
    // The shell takes its script from args, so that args[0], the rest and the environment all show.
    bundle.push(
        "/hooks/createRuntime",
        json!({
            "path": "/bin/sh",
            "args": ["my-name", "-c", format!("echo \"$0|$1|$KEY|$HOME\" > {}", file.display()), "zero", "one two"],
            "env": ["KEY=a value"]
        }),
    );
    let _container = env.create(&bundle)?;
    let seen = fs::read_to_string(&file).context("the hook did not run")?;
    ensure!(
        seen == "zero|one two|a value|\n",
        "the hook saw {seen:?}: only its own environment may reach it"
    );
    passed()
}

fn unread_input(env: &Env) -> Result<Verdict> {
    // Most hooks in the wild never read the state; writing it to them must not hurt.
    let mut bundle = env.bundle()?;
    bundle.set(
        "/annotations",
        json!({"com.example.long": "x".repeat(200_000)}),
    );
    bundle.push("/hooks/createRuntime", json!({"path": "/bin/true"}));
    bundle.push("/hooks/poststop", json!({"path": "/bin/true"}));
    bundle.write()?;
    let path = bundle.path.to_string_lossy();
    let finished = env
        .runtime
        .call(["run", "--bundle", &path, &env.id()])
        .run()?;
    if matches!(finished.exit, Exit::Signal(13)) && env.is_reference("crun")? {
        return skipped("crun dies of SIGPIPE when a hook does not read its input");
    }
    if finished.stderr.contains("broken pipe") && env.is_reference("runc")? {
        return skipped("runc takes a hook that does not read its input for failed");
    }
    finished.ok()?;
    passed()
}

fn pid_is_live(env: &Env) -> Result<Verdict> {
    // Network plugins in hooks enter /proc/PID/ns/net: the pid must be one that lives during the hook.
    let dir = env.directory("hooks")?;
    let mut bundle = env.bundle()?;
    let script = format!(
        "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); readlink /proc/$pid/ns/net > {}",
        dir.join("netns").display()
    );
    bundle.push("/hooks/createRuntime", hook(&dir, "enter", &script)?);
    let _container = env.create(&bundle)?;
    let link = fs::read_to_string(dir.join("netns")).unwrap_or_default();
    ensure!(
        link.starts_with("net:["),
        "the pid in the hook's state names no process: {link:?}"
    );
    passed()
}

/// A hook of `kind` fails: `create` must fail, name it, run no process and leave nothing.
fn failing(env: &Env, kind: &str) -> Result<()> {
    let dir = env.directory("hooks")?;
    let mut bundle = env.script("echo ran > /mark")?;
    bundle.push(
        &format!("/hooks/{kind}"),
        hook(
            &dir,
            "failing",
            "cat > /dev/null; echo the reason >&2; exit 9",
        )?,
    );
    bundle.write()?;
    create_refused(env, &bundle, &["hook", "failing.sh"])?;
    ensure!(
        !bundle.rootfs("mark").exists(),
        "the process ran though its {kind} hook failed"
    );
    Ok(())
}

fn create_refused(env: &Env, bundle: &Bundle, things: &[&str]) -> Result<()> {
    let path = bundle.path.to_string_lossy().into_owned();
    env.runtime
        .call(["create", "--bundle", &path, &env.id()])
        .run()?
        .refused(things)?;
    env.nothing_left()
}

fn failing_create_runtime(env: &Env) -> Result<Verdict> {
    failing(env, "createRuntime")?;
    passed()
}

fn failing_prestart(env: &Env) -> Result<Verdict> {
    failing(env, "prestart")?;
    passed()
}

fn failing_poststop(env: &Env) -> Result<Verdict> {
    let dir = env.directory("hooks")?;
    let mut bundle = env.bundle()?;
    bundle.push(
        "/hooks/poststop",
        hook(&dir, "failing", "cat > /dev/null; exit 9")?,
    );
    bundle.push("/hooks/poststop", logging(&dir, "second")?);
    let container = env.start(&bundle)?;
    container.expect_exit(Exit::Code(0))?;
    container.reach_status("stopped")?;
    let _ = container.call(&["delete"], &[]).run()?;
    if logged(&dir).is_empty() && env.is_reference("runc")? {
        return skipped("runc ends with the first poststop hook that fails");
    }
    // runtime-spec: a failing poststop hook is logged, and the remaining hooks run.
    ensure!(
        logged(&dir) == ["second"],
        "the second poststop hook did not run after the first had failed"
    );
    env.nothing_left()?;
    passed()
}

fn missing_program(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    bundle.push("/hooks/createRuntime", json!({"path": "/no/such/hook"}));
    bundle.write()?;
    create_refused(env, &bundle, &["/no/such/hook", "hook"])?;
    passed()
}

fn timeout(env: &Env) -> Result<Verdict> {
    let dir = env.directory("hooks")?;
    let mut bundle = env.bundle()?;
    let mut slow = hook(&dir, "slow", "exec sleep 1000")?;
    slow["timeout"] = json!(1);
    bundle.push("/hooks/createRuntime", slow);
    bundle.write()?;
    create_refused(env, &bundle, &["hook", "timeout", "timed out", "slow.sh"])?;
    passed()
}

fn start_container(env: &Env) -> Result<Verdict> {
    let mut bundle = env.script("cat /from-hook; exit 0")?;
    let script = "cat > /state; echo \"$0 $KEY $(hostname)\" > /from-hook";
    bundle.push(
        "/hooks/startContainer",
        json!({"path": "/bin/sh", "args": ["sh", "-c", script, "named"], "env": ["PATH=/bin", "KEY=value"]}),
    );
    let mut container = env.create(&bundle)?;
    ensure!(
        !bundle.rootfs("from-hook").exists(),
        "the startContainer hook ran before start"
    );
    container.start()?;
    let line = container.stdout.line()?;
    ensure!(
        line == "named value conformance",
        "the hook inside the container wrote {line:?}"
    );
    container.expect_exit(Exit::Code(0))?;
    let state = fs::read_to_string(bundle.rootfs("state"))?;
    ensure!(
        state.contains(&container.id),
        "the hook's standard input was {state:?}"
    );
    passed()
}

fn create_container(env: &Env) -> Result<Verdict> {
    let dir: PathBuf = env.directory("hooks")?;
    let mut bundle = env.bundle()?;
    let file = dir.join("mounts");
    let script = format!("cat /proc/self/mountinfo > {}", file.display());
    bundle.push("/hooks/createContainer", hook(&dir, "inside", &script)?);
    if env.vm {
        bundle.write()?;
        create_refused(env, &bundle, &["createContainer"])?;
        return passed();
    }
    let _container = env.create(&bundle)?;
    let mounts = fs::read_to_string(&file).context("the createContainer hook did not run")?;
    let inside = bundle.rootfs("proc").to_string_lossy().into_owned();
    ensure!(
        mounts.contains(&inside),
        "the hook does not see the container's mounts:\n{mounts}"
    );
    passed()
}
