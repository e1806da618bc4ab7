//! `kill`, and signals that reach a foreground `run`.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::case::{Case, Verdict, case, passed, skipped};
use crate::environment::Env;
use crate::pipes;
use crate::reaper::{self, Exit};

/// The cases of this group.
pub const CASES: &[Case] = &[
    case("signals/kill-defaults-to-term", default_term),
    case("signals/names-and-numbers", names_and_numbers),
    case("signals/unknown-signal-refused", unknown),
    case("signals/pid-1-is-deaf-without-handler", deaf),
    case("signals/kill-all", kill_all),
    case("signals/children-die-with-pid-1", children_die),
    case("signals/forwarded-by-foreground-run", forwarded),
    case("signals/forwarded-to-exec", forwarded_to_exec),
    case("signals/orphans-are-reaped-inside", orphans),
];

const TRAP: &str = "trap 'echo got TERM; exit 3' TERM; trap 'echo got HUP' HUP; trap 'echo got USR1' USR1; \
                    echo ready; while :; do sleep 0.05; done";

fn default_term(env: &Env) -> Result<Verdict> {
    let mut container = env.start(&env.script(TRAP)?)?;
    ensure!(container.stdout.line()? == "ready", "no output");
    container.call(&["kill"], &[]).ok()?;
    ensure!(container.stdout.line()? == "got TERM", "TERM did not come");
    container.expect_exit(Exit::Code(3))?;
    passed()
}

fn names_and_numbers(env: &Env) -> Result<Verdict> {
    let mut container = env.start(&env.script(TRAP)?)?;
    ensure!(container.stdout.line()? == "ready", "no output");
    for (signal, wanted) in [
        ("HUP", "got HUP"),
        ("SIGHUP", "got HUP"),
        ("1", "got HUP"),
        ("USR1", "got USR1"),
        ("10", "got USR1"),
        ("SIGTERM", "got TERM"),
    ] {
        container.kill(signal)?;
        let line = container
            .stdout
            .line()
            .with_context(|| format!("after kill {signal}"))?;
        ensure!(line == wanted, "kill {signal} gave {line:?}");
    }
    container.expect_exit(Exit::Code(3))?;
    passed()
}

fn unknown(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    for signal in ["NONSENSE", "SIGNONSENSE", "9x"] {
        let finished = container.call(&["kill"], &[signal]).run()?;
        if finished.exit == Exit::Code(0) && env.is_reference("crun")? {
            return skipped("crun accepts unknown signal names");
        }
        finished.refused(&[signal, "signal"])?;
    }
    container.expect_status("running")?;
    passed()
}

fn deaf(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    container.kill("TERM")?;
    // The exec comes after the signal: had TERM killed process 1, there would be nothing to enter.
    container
        .exec_text("true")
        .context("TERM killed a process 1 that has no handler for it")?;
    container.expect_status("running")?;
    container.kill("KILL")?;
    container.expect_exit(Exit::Signal(9))?;
    passed()
}

fn kill_all(env: &Env) -> Result<Verdict> {
    let mut container =
        env.start(&env.script("sleep 100000 & sleep 100000 & echo ready; wait")?)?;
    ensure!(container.stdout.line()? == "ready", "no output");
    container.call(&["kill", "--all"], &["KILL"]).ok()?;
    ensure!(
        container.wait()?.shell_code() == 137,
        "process 1 was not killed"
    );
    container.reach_status("stopped")?;
    // containerd does this to stopped containers as well.
    let again = container.call(&["kill", "--all"], &["KILL"]).run()?;
    ensure!(
        matches!(again.exit, Exit::Code(_)),
        "`kill --all` of a stopped container: {}",
        again.exit
    );
    container.delete()?;
    env.nothing_left()?;
    passed()
}

fn children_die(env: &Env) -> Result<Verdict> {
    let mut container =
        env.start(&env.script("(while :; do echo alive; sleep 0.05; done) & read line; exit 1")?)?;
    ensure!(container.stdout.line()? == "alive", "no output");
    drop(container.stdin.take());
    container.expect_exit(Exit::Code(1))?;
    // The background loop holds stdout open; its end shows that the loop is gone.
    container
        .stdout
        .rest()
        .context("a child outlives process 1")?;
    passed()
}

fn forwarded(env: &Env) -> Result<Verdict> {
    let bundle = env.script(TRAP)?;
    bundle.write()?;
    let (mut stdout, end) = pipes::output(env.deadline())?;
    let path = bundle.path.to_string_lossy();
    let running = env
        .runtime
        .call(["run", "--bundle", &path, &env.id()])
        .stdout(end)
        .spawn()?;
    ensure!(stdout.line()? == "ready", "no output");
    running.signal(Signal::HUP)?;
    ensure!(stdout.line()? == "got HUP", "HUP was not forwarded");
    running.signal(Signal::USR1)?;
    ensure!(stdout.line()? == "got USR1", "USR1 was not forwarded");
    running.signal(Signal::TERM)?;
    ensure!(stdout.line()? == "got TERM", "TERM was not forwarded");
    running.wait()?.code(3)?;
    env.nothing_left()?;
    passed()
}

fn forwarded_to_exec(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    let (mut stdout, end) = pipes::output(env.deadline())?;
    let running = container.exec(TRAP).stdout(end).spawn()?;
    ensure!(stdout.line()? == "ready", "no output");
    running.signal(Signal::TERM)?;
    ensure!(
        stdout.line()? == "got TERM",
        "TERM was not forwarded to the exec"
    );
    running.wait()?.code(3)?;
    container.expect_status("running")?;
    passed()
}

fn orphans(env: &Env) -> Result<Verdict> {
    // Process 1 (a shell) waits only for its own child; the orphan is the kernel's and the shell's matter,
    // and must not show as the end of the container.
    let script = "sh -c '(sleep 0.1; echo orphan) & exit 0'; echo parent; read line; exit 5";
    let mut container = env.start(&env.script(script)?)?;
    let mut lines = [container.stdout.line()?, container.stdout.line()?];
    lines.sort_unstable();
    ensure!(lines == ["orphan", "parent"], "the output is {lines:?}");
    container.expect_status("running")?;
    ensure!(
        reaper::stat(container.pid).is_some_and(|process| process.is_alive()),
        "the container's pid is dead"
    );
    drop(container.stdin.take());
    container.expect_exit(Exit::Code(5))?;
    passed()
}
