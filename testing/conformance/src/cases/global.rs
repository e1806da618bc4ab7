//! Global flags, and what a command line may get wrong.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::case::{Case, Verdict, case, differs, passed};
use crate::environment::Env;
use crate::reaper::Exit;

/// The cases of this group.
pub const CASES: &[Case] = &[
    case("global/version", version),
    case("global/root-isolates", root_isolates),
    case("global/log-json", log_json),
    case("global/log-text", log_text),
    case("global/log-unwritable-refused", log_unwritable),
    case("global/debug", debug),
    case("global/unknown-command-and-flag", unknown_words),
    case("global/pid-file-unwritable", pid_file_unwritable),
    differs(
        "global/preserve-fds",
        "a descriptor of the host cannot enter another kernel: it must be refused by name, not dropped",
        preserve_fds,
    ),
];

fn version(env: &Env) -> Result<Verdict> {
    let text = env.runtime.version()?;
    ensure!(
        text.lines()
            .next()
            .is_some_and(|line| line.contains("version ")),
        "--version prints {text:?}"
    );
    ensure!(
        text.lines().any(|line| line.starts_with("spec: 1.")),
        "engines look for a line `spec: 1.…`: {text:?}"
    );
    passed()
}

fn root_isolates(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    let other = env.dir.join("other-root");
    let listed = env
        .runtime
        .call(["list", "--quiet"])
        .root(&other)
        .ok()?
        .text();
    ensure!(listed.trim().is_empty(), "another --root lists {listed:?}");
    for command in [["state", &container.id], ["kill", &container.id]] {
        env.runtime
            .call(command)
            .root(&other)
            .run()?
            .refused(&[&container.id, "not exist"])?;
    }
    container.expect_status("running")?;
    passed()
}

fn log_unwritable(env: &Env) -> Result<Verdict> {
    // An engine would look for the error there.
    env.runtime
        .call(["list"])
        .global(["--log", "/nonexistent/log"])
        .run()?
        .refused(&["/nonexistent/log"])?;
    passed()
}

fn log_json(env: &Env) -> Result<Verdict> {
    let log = env.dir.join("log.json");
    let id = env.id();
    let flags = ["--log", &log.to_string_lossy(), "--log-format", "json"];
    env.runtime
        .call(["start", &id])
        .global(flags)
        .run()?
        .refused(&[&id, "not exist"])?;
    let text = fs::read_to_string(&log).context("no log was written")?;
    // containerd reads the last error record of this file for its own message, line by line.
    let records = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<Vec<Value>, _>>();
    let records = records.with_context(|| format!("a line of the log is no JSON: {text:?}"))?;
    let error = records
        .iter()
        .rfind(|record| record["level"] == "error")
        .context("no record has the level error")?;
    let message = error["msg"]
        .as_str()
        .context("the record has no msg")?
        .to_lowercase();
    ensure!(
        message.contains("not exist") || message.contains("no such file"),
        "the message is {message:?}"
    );
    let time = error["time"].as_str().context("the record has no time")?;
    ensure!(
        time.len() >= 20 && time.contains('T'),
        "the time is {time:?}"
    );
    passed()
}

fn log_text(env: &Env) -> Result<Verdict> {
    let log = env.dir.join("log.txt");
    let id = env.id();
    env.runtime
        .call(["start", &id])
        .global(["--log", &log.to_string_lossy()])
        .run()?
        .refused(&[&id, "not exist"])?;
    let text = fs::read_to_string(&log).context("no log was written")?;
    ensure!(
        text.contains("not exist") || text.contains("No such file"),
        "the log holds {text:?}"
    );
    passed()
}

fn debug(env: &Env) -> Result<Verdict> {
    let log = env.dir.join("log.json");
    let flags = [
        "--debug",
        "--log",
        &log.to_string_lossy(),
        "--log-format",
        "json",
    ];
    let container = env.sleeper()?;
    let state = container.call(&["state"], &[]).global(flags).ok()?.json()?;
    ensure!(
        state["status"] == "running",
        "debug output spoils the state: {state}"
    );
    let text = container.exec("echo clean").global(flags).ok()?.text();
    ensure!(
        text == "clean\n",
        "debug output spoils the container's: {text:?}"
    );
    for line in fs::read_to_string(&log).unwrap_or_default().lines() {
        serde_json::from_str::<Value>(line)
            .with_context(|| format!("a line of the log is no JSON: {line:?}"))?;
    }
    passed()
}

fn unknown_words(env: &Env) -> Result<Verdict> {
    let id = env.id();
    let calls: [&[&str]; 4] = [
        &["create", "--no-such-flag", &id],
        &["create"],
        &["state"],
        &["kill"],
    ];
    for words in calls {
        let finished = env.runtime.call(words).run()?;
        ensure!(
            matches!(finished.exit, Exit::Code(code) if code != 0),
            "`{}` was accepted: {}",
            words.join(" "),
            finished.exit
        );
        ensure!(
            !finished.stderr.trim().is_empty(),
            "`{}` was refused without a message",
            words.join(" ")
        );
    }
    env.nothing_left()?;
    passed()
}

fn pid_file_unwritable(env: &Env) -> Result<Verdict> {
    let bundle = env.bundle()?;
    bundle.write()?;
    let path = bundle.path.to_string_lossy();
    env.runtime
        .call([
            "create",
            "--bundle",
            &path,
            "--pid-file",
            "/no/such/dir/pid",
            &env.id(),
        ])
        .run()?
        .refused(&["/no/such/dir", "pid file", "pid-file"])?;
    env.nothing_left()
        .context("after a pid file that could not be written")?;
    passed()
}

fn preserve_fds(env: &Env) -> Result<Verdict> {
    let bundle = env.script("cat <&3; ls /proc/self/fd | wc -l")?;
    bundle.write()?;
    let file = env.dir.join("inherited");
    fs::write(&file, "through descriptor 3\n")?;
    let path = bundle.path.to_string_lossy();
    let call = env
        .runtime
        .call(["run", "--preserve-fds", "1", "--bundle", &path, &env.id()])
        .inherit(&[&file]);
    if env.vm {
        call.run()?.refused(&["preserve-fds"])?;
        env.nothing_left()?;
        return passed();
    }
    let text = call.ok()?.text();
    // The descriptors 0 to 3 and the directory that ls reads.
    ensure!(text == "through descriptor 3\n5\n", "it printed {text:?}");
    passed()
}
