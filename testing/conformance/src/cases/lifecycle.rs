//! `create`, `start`, `kill`, `delete`, `run`, `list`.

use anyhow::{Context, Result, ensure};

use crate::case::{Case, Verdict, case, passed, skipped};
use crate::environment::Env;
use crate::reaper::{self, Exit};

/// The cases of this group.
pub const CASES: &[Case] = &[
    case("lifecycle/create-start-exit-delete", whole_life),
    case("lifecycle/create-does-not-start", create_does_not_start),
    case("lifecycle/run-foreground", run_foreground),
    case("lifecycle/run-detached", run_detached),
    case(
        "lifecycle/bundle-defaults-to-working-directory",
        bundle_in_cwd,
    ),
    case("lifecycle/list", list),
    case("lifecycle/id-is-free-after-delete", reuse_id),
    case("lifecycle/delete-of-running-refused", delete_running),
    case("lifecycle/delete-force-of-running", delete_force_running),
    case("lifecycle/delete-of-created", delete_created),
    case("lifecycle/delete-of-unknown", delete_unknown),
    case("lifecycle/create-twice-refused", create_twice),
    case("lifecycle/start-twice-refused", start_twice),
    case("lifecycle/start-of-stopped-refused", start_stopped),
    case("lifecycle/kill-of-stopped-refused", kill_stopped),
    case("lifecycle/commands-on-unknown-id-refused", unknown_id),
    case("lifecycle/invalid-ids-refused", invalid_ids),
    case("lifecycle/id-with-leading-slash-refused", leading_slash),
    case("lifecycle/two-containers-of-one-bundle", shared_bundle),
];

fn whole_life(env: &Env) -> Result<Verdict> {
    let container = env.create(&env.script("echo hello; exit 7")?)?;
    container.expect_status("created")?;
    container.start()?;
    container.expect_exit(Exit::Code(7))?;
    container.reach_status("stopped")?;
    container.delete()?;
    container
        .call(&["state"], &[])
        .run()?
        .refused(&["not exist", &container.id])?;
    env.nothing_left()?;
    passed()
}

fn create_does_not_start(env: &Env) -> Result<Verdict> {
    let bundle = env.script("echo started > /mark")?;
    let container = env.create(&bundle)?;
    let process = reaper::stat(container.pid).context("the pid file names no living process")?;
    ensure!(
        process.is_alive(),
        "the process of a created container is dead"
    );
    // Other commands pass in between, so a process that had been started would have had the time to write.
    container.expect_status("created")?;
    container.call(&["state"], &[]).ok()?;
    ensure!(
        !bundle.rootfs("mark").exists(),
        "the process ran before `start`"
    );
    container.start()?;
    container.expect_exit(Exit::Code(0))?;
    ensure!(bundle.rootfs("mark").exists(), "the process did not run");
    passed()
}

fn run_foreground(env: &Env) -> Result<Verdict> {
    let finished = env
        .run(&env.script("echo out; echo err >&2; exit 42")?)?
        .code(42)?;
    ensure!(
        finished.text() == "out\n",
        "stdout is {:?}",
        finished.text()
    );
    ensure!(
        finished.stderr == "err\n",
        "stderr is {:?}",
        finished.stderr
    );
    env.nothing_left()
        .context("`run` must delete the container that it ran")?;
    passed()
}

fn run_detached(env: &Env) -> Result<Verdict> {
    let bundle = env.script("exit 5")?;
    bundle.write()?;
    let (id, pid_file) = (env.id(), env.dir.join("pid"));
    let (path, file) = (bundle.path.to_string_lossy(), pid_file.to_string_lossy());
    env.runtime
        .call([
            "run",
            "--detach",
            "--bundle",
            &path,
            "--pid-file",
            &file,
            &id,
        ])
        .ok()?;
    let exit = reaper::wait(crate::container::read_pid(&pid_file)?, env.deadline())?;
    ensure!(exit == Exit::Code(5), "the container ended with {exit}");
    env.runtime.call(["delete", &id]).ok()?;
    env.nothing_left()?;
    passed()
}

fn bundle_in_cwd(env: &Env) -> Result<Verdict> {
    let bundle = env.script("echo here")?;
    bundle.write()?;
    let finished = env
        .runtime
        .call(["run", &env.id()])
        .dir(&bundle.path)
        .ok()?;
    ensure!(
        finished.text() == "here\n",
        "stdout is {:?}",
        finished.text()
    );
    passed()
}

fn list(env: &Env) -> Result<Verdict> {
    let empty = env.runtime.call(["list", "--quiet"]).ok()?.text();
    ensure!(empty.trim().is_empty(), "a fresh --root lists {empty:?}");
    let (bundle, running) = (env.bundle()?, env.sleeper()?);
    let created = env.create(&bundle)?;

    let quiet = env.runtime.call(["list", "--quiet"]).ok()?.text();
    let mut ids: Vec<_> = quiet.lines().map(str::trim).collect();
    ids.sort_unstable();
    let mut wanted = vec![created.id.as_str(), running.id.as_str()];
    wanted.sort_unstable();
    ensure!(
        ids == wanted,
        "`list --quiet` shows {ids:?} instead of {wanted:?}"
    );

    let json = env
        .runtime
        .call(["list", "--format", "json"])
        .ok()?
        .json()?;
    let items = json
        .as_array()
        .context("`list --format json` prints no array")?;
    ensure!(
        items.len() == 2,
        "`list --format json` shows {} containers, not 2",
        items.len()
    );
    let item = items
        .iter()
        .find(|item| item["id"] == created.id.as_str())
        .context("the created one is not listed")?;
    ensure!(
        item["status"] == "created",
        "the listed status is {}",
        item["status"]
    );
    ensure!(
        item["pid"] == created.pid,
        "the listed pid is {}, not {}",
        item["pid"],
        created.pid
    );
    ensure!(
        item["bundle"] == bundle.path.to_string_lossy().as_ref(),
        "the listed bundle is {}",
        item["bundle"]
    );

    let table = env.runtime.call(["list"]).ok()?.text();
    let head = table.lines().next().unwrap_or_default();
    for column in ["PID", "STATUS", "BUNDLE", "CREATED"] {
        ensure!(
            head.contains(column),
            "the table has no column {column}: {head:?}"
        );
    }
    let row = table
        .lines()
        .find(|row| row.contains(&running.id))
        .context("the running one is not in the table")?;
    ensure!(
        row.contains("running") && row.contains(&running.pid.to_string()),
        "the row is {row:?}"
    );
    passed()
}

fn reuse_id(env: &Env) -> Result<Verdict> {
    let bundle = env.bundle()?;
    let first = env.create(&bundle)?;
    first.start()?;
    first.expect_exit(Exit::Code(0))?;
    first.delete()?;
    for _ in 0..2 {
        let again =
            crate::container::Container::create(&env.runtime, &bundle.path, &first.id, &[])?;
        again.expect_status("created")?;
        again.start()?;
        again.expect_exit(Exit::Code(0))?;
        again.delete()?;
    }
    passed()
}

fn delete_running(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    container
        .call(&["delete"], &[])
        .run()?
        .refused(&[&container.id, "not stopped", "running"])?;
    container.expect_status("running")?;
    container.kill("KILL")?;
    container.expect_exit(Exit::Signal(9))?;
    container.reach_status("stopped")?;
    container.delete()?;
    passed()
}

fn delete_force_running(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    container.call(&["delete", "--force"], &[]).ok()?;
    container.expect_exit(Exit::Signal(9))?;
    env.nothing_left()?;
    passed()
}

fn delete_created(env: &Env) -> Result<Verdict> {
    let container = env.create(&env.bundle()?)?;
    // runc deletes a created container, crun demands --force here: both leave nothing in the end.
    let finished = container.call(&["delete"], &[]).run()?;
    if finished.exit != Exit::Code(0) {
        container.call(&["delete", "--force"], &[]).ok()?;
    }
    ensure!(
        reaper::wait_gone(container.pid, env.deadline()),
        "process {} outlives its container",
        container.pid
    );
    env.nothing_left()?;
    passed()
}

fn delete_unknown(env: &Env) -> Result<Verdict> {
    let id = env.id();
    env.runtime
        .call(["delete", &id])
        .run()?
        .refused(&[&id, "not exist"])?;
    // Engines call this blindly when they clean up.
    let forced = env.runtime.call(["delete", "--force", &id]).run()?;
    ensure!(
        matches!(forced.exit, Exit::Code(_)),
        "`delete --force` of an unknown id: {}",
        forced.exit
    );
    passed()
}

fn create_twice(env: &Env) -> Result<Verdict> {
    let bundle = env.bundle()?;
    let container = env.create(&bundle)?;
    let path = bundle.path.to_string_lossy();
    env.runtime
        .call(["create", "--bundle", &path, &container.id])
        .run()?
        .refused(&["exist", &container.id])?;
    container
        .expect_status("created")
        .context("the second create harmed the first container")?;
    container.start()?;
    container.expect_exit(Exit::Code(0))?;
    passed()
}

fn start_twice(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    container
        .call(&["start"], &[])
        .run()?
        .refused(&[&container.id, "running", "start"])?;
    container
        .expect_status("running")
        .context("the second start harmed the container")?;
    passed()
}

fn start_stopped(env: &Env) -> Result<Verdict> {
    let container = env.start(&env.bundle()?)?;
    container.expect_exit(Exit::Code(0))?;
    container.reach_status("stopped")?;
    container
        .call(&["start"], &[])
        .run()?
        .refused(&[&container.id, "stopped", "start"])?;
    passed()
}

fn kill_stopped(env: &Env) -> Result<Verdict> {
    let container = env.start(&env.bundle()?)?;
    container.expect_exit(Exit::Code(0))?;
    container.reach_status("stopped")?;
    container.call(&["kill"], &["TERM"]).run()?.refused(&[
        &container.id,
        "not running",
        "no such process",
    ])?;
    passed()
}

fn unknown_id(env: &Env) -> Result<Verdict> {
    let id = env.id();
    for command in ["state", "start", "kill", "pause", "resume", "ps"] {
        env.runtime
            .call([command, &id])
            .run()?
            .refused(&[&id, "not exist"])
            .with_context(|| format!("`{command}` of an unknown id"))?;
    }
    env.runtime
        .call(["exec", &id, "/bin/true"])
        .run()?
        .refused(&[&id, "not exist"])?;
    passed()
}

fn invalid_ids(env: &Env) -> Result<Verdict> {
    let bundle = env.bundle()?;
    bundle.write()?;
    let path = bundle.path.to_string_lossy();
    let outside = env.dir.join("outside");
    for id in ["", ".", "..", "a/b", "../outside"] {
        let finished = env.runtime.call(["create", "--bundle", &path, id]).run()?;
        ensure!(
            matches!(finished.exit, Exit::Code(code) if code != 0),
            "`create` accepted the id {id:?}: {}",
            finished.exit
        );
        ensure!(
            !finished.stderr.trim().is_empty(),
            "the id {id:?} was refused without a message"
        );
        ensure!(!outside.exists(), "the id {id:?} reached out of --root");
    }
    env.nothing_left()?;
    passed()
}

fn leading_slash(env: &Env) -> Result<Verdict> {
    let bundle = env.bundle()?;
    bundle.write()?;
    let finished = env
        .runtime
        .call([
            "create",
            "--bundle",
            &bundle.path.to_string_lossy(),
            "/absolute",
        ])
        .run()?;
    if finished.exit == Exit::Code(0) && env.is_reference("crun")? {
        return skipped("crun before 1.9 takes the slash for part of the path below --root");
    }
    finished.refused(&["/absolute", "id"])?;
    env.nothing_left()?;
    passed()
}

fn shared_bundle(env: &Env) -> Result<Verdict> {
    let bundle = env.script("read line; echo got $line")?;
    let (mut first, mut second) = (env.start(&bundle)?, env.start(&bundle)?);
    for (container, word) in [(&mut first, "one"), (&mut second, "two")] {
        container.stdin.as_mut().context("stdin")?.line(word)?;
        let line = container.stdout.line()?;
        ensure!(
            line == format!("got {word}"),
            "the container printed {line:?}"
        );
        container.expect_exit(Exit::Code(0))?;
    }
    passed()
}
