//! Many things at once.

use anyhow::{Context, Result, ensure};

use crate::case::{Case, Verdict, case, passed, skipped};
use crate::environment::Env;
use crate::pipes;
use crate::reaper::Exit;

/// The cases of this group.
pub const CASES: &[Case] = &[
    case("load/twenty-containers-at-once", twenty_containers),
    case("load/twenty-execs-at-once", twenty_execs),
    case("load/two-hundred-execs-in-a-row", many_execs),
    case("load/one-id-many-creates", one_id),
    case("load/delete-and-create-in-turn", turns),
    case("load/kill-during-output", kill_during_output),
];

fn twenty_containers(env: &Env) -> Result<Verdict> {
    let bundle = env.script("read word; echo up $word; read word; echo down $word; exit 7")?;
    bundle.write()?;
    let path = bundle.path.to_string_lossy();
    let mut all = Vec::new();
    for n in 0..20 {
        let (stdin, stdin_end) = pipes::input(env.deadline())?;
        let (stdout, stdout_end) = pipes::output(env.deadline())?;
        let call = env.runtime.call(["run", "--bundle", &path, &env.id()]);
        all.push((
            n,
            stdin,
            stdout,
            call.stdin(stdin_end).stdout(stdout_end).spawn()?,
        ));
    }
    for (n, stdin, stdout, _) in &mut all {
        stdin.line(&n.to_string())?;
        let line = stdout.line().with_context(|| format!("container {n}"))?;
        ensure!(line == format!("up {n}"), "container {n} printed {line:?}");
    }
    let listed = env.runtime.call(["list", "--quiet"]).ok()?.text();
    ensure!(
        listed.lines().count() == 20,
        "{} containers are listed, not 20",
        listed.lines().count()
    );
    for (n, mut stdin, mut stdout, running) in all {
        stdin.line(&n.to_string())?;
        let line = stdout.line().with_context(|| format!("container {n}"))?;
        ensure!(
            line == format!("down {n}"),
            "container {n} printed {line:?}"
        );
        running.wait()?.code(7)?;
    }
    env.nothing_left()?;
    passed()
}

fn twenty_execs(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    let mut all = Vec::new();
    for n in 0..20 {
        let (stdin, end) = pipes::input(env.deadline())?;
        let call = container.exec(&format!(
            "read word; echo out {n} $word; echo err {n} >&2; exit {n}"
        ));
        all.push((n, stdin, call.stdin(end).spawn()?));
    }
    // The last one first, so that none may wait for another.
    for (n, mut stdin, running) in all.into_iter().rev() {
        stdin.line("word")?;
        let finished = running.wait()?.code(n)?;
        ensure!(
            finished.text() == format!("out {n} word\n"),
            "exec {n} printed {:?}",
            finished.text()
        );
        ensure!(
            finished.stderr == format!("err {n}\n"),
            "exec {n} wrote {:?}",
            finished.stderr
        );
    }
    passed()
}

fn many_execs(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    for n in 0..200 {
        let text = container
            .call(&["exec"], &["/bin/echo", &n.to_string()])
            .ok()?
            .text();
        ensure!(text == format!("{n}\n"), "exec {n} printed {text:?}");
    }
    let count = container.exec_text("ls -d /proc/[0-9]* | wc -l")?;
    ensure!(
        count.trim().parse::<u32>()? <= 5,
        "{count} processes are left in the container"
    );
    passed()
}

fn one_id(env: &Env) -> Result<Verdict> {
    if env.is_reference("runc")? {
        return skipped(
            "runc 1.1 looks for the id and takes it in two steps: two creates can win, and lose the state",
        );
    }
    let bundle = env.bundle()?;
    bundle.write()?;
    let (path, id) = (bundle.path.to_string_lossy(), env.id());
    let mut all = Vec::new();
    for _ in 0..6 {
        all.push(
            env.runtime
                .call(["create", "--bundle", &path, &id])
                .spawn()?,
        );
    }
    let mut won = 0;
    for running in all {
        won += usize::from(running.wait()?.exit == Exit::Code(0));
    }
    ensure!(won == 1, "{won} of 6 creates with one id succeeded");
    let state = env.runtime.call(["state", &id]).ok()?.json()?;
    ensure!(
        state["status"] == "created",
        "the winner is {}",
        state["status"]
    );
    env.runtime.call(["start", &id]).ok()?;
    passed()
}

fn turns(env: &Env) -> Result<Verdict> {
    let bundle = env.script("exit 3")?;
    bundle.write()?;
    let id = env.id();
    for n in 0..8 {
        let container = crate::container::Container::create(&env.runtime, &bundle.path, &id, &[])
            .with_context(|| format!("round {n}"))?;
        container.start()?;
        container.expect_exit(Exit::Code(3))?;
        container.call(&["delete", "--force"], &[]).ok()?;
        env.nothing_left()
            .with_context(|| format!("after round {n}"))?;
    }
    passed()
}

fn kill_during_output(env: &Env) -> Result<Verdict> {
    let mut container = env.start(env.bundle()?.args(&["/bin/yes"]))?;
    ensure!(container.stdout.line()? == "y", "no output");
    // The pipe is full now, and whoever carries the output waits for us: killing must not need a reader.
    container.kill("KILL")?;
    container.expect_exit(Exit::Signal(9))?;
    container.reach_status("stopped")?;
    container.delete()?;
    env.nothing_left()?;
    passed()
}
