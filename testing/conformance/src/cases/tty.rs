//! Terminals handed over through `--console-socket`.

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;

use crate::bundle::Bundle;
use crate::case::{Case, Verdict, case, passed, skipped};
use crate::container::Container;
use crate::environment::Env;
use crate::pipes::{Reader, write_all};
use crate::reaper::Exit;
use crate::runtime::Running;
use crate::terminal::Terminal;

/// The cases of this group.
pub const CASES: &[Case] = &[
    case("tty/streams-are-a-terminal", is_terminal),
    case("tty/input-and-echo", input_echo),
    case("tty/resize", resize),
    case("tty/resize-signals-process", resize_signals),
    case("tty/console-size-from-config", console_size),
    case("tty/interrupt-key", interrupt_key),
    case("tty/end-of-file-key", end_of_file),
    case("tty/end-of-output-on-exit", end_of_output),
    case("tty/dev-console", dev_console),
    case("tty/exec-terminal", exec_terminal),
    case("tty/foreground-run", foreground_run),
    case("tty/foreground-run-takes-size", foreground_size),
];

fn with_terminal(env: &Env, script: &str) -> Result<Bundle> {
    let mut bundle = env.script(script)?;
    bundle.set("/process/terminal", json!(true));
    Ok(bundle)
}

fn create<'e>(env: &'e Env, bundle: &Bundle) -> Result<(Container<'e>, Terminal)> {
    let socket = env.console()?;
    let container = env.create_with(bundle, &["--console-socket", &socket.path()])?;
    let terminal = socket.accept()?;
    Ok((container, terminal))
}

fn start<'e>(env: &'e Env, script: &str) -> Result<(Container<'e>, Terminal)> {
    let (container, terminal) = create(env, &with_terminal(env, script)?)?;
    container.start()?;
    Ok((container, terminal))
}

fn is_terminal(env: &Env) -> Result<Verdict> {
    let script = "test -t 0 && test -t 1 && test -t 2 && echo all; tty; exit 9";
    let (container, mut terminal) = start(env, script)?;
    terminal.output.until("all\r\n")?;
    terminal.output.until("/dev/")?;
    container.expect_exit(Exit::Code(9))?;
    container.delete()?;
    passed()
}

fn input_echo(env: &Env) -> Result<Verdict> {
    let (container, mut terminal) = start(env, "echo ready; read line; echo \"got <$line>\"")?;
    terminal.output.until("ready\r\n")?;
    terminal.type_text("hello\n")?;
    terminal
        .output
        .until("hello\r\n")
        .context("the terminal does not echo")?;
    terminal.output.until("got <hello>\r\n")?;
    container.expect_exit(Exit::Code(0))?;
    passed()
}

fn resize(env: &Env) -> Result<Verdict> {
    let (container, mut terminal) = start(
        env,
        "echo ready; while read line; do echo \"size $(stty size)\"; done",
    )?;
    terminal.output.until("ready\r\n")?;
    for (rows, columns) in [(33, 101), (50, 132)] {
        terminal.resize(rows, columns)?;
        // A change crosses into a VM on another way than the typed line, so ask until it has arrived.
        loop {
            terminal.type_text("\n")?;
            let answer = terminal
                .output
                .until("size ")
                .and_then(|_| terminal.output.line())?;
            if answer == format!("{rows} {columns}") {
                break;
            }
        }
    }
    terminal.type_text("\u{4}")?;
    container.expect_exit(Exit::Code(0))?;
    passed()
}

fn resize_signals(env: &Env) -> Result<Verdict> {
    let script = "trap 'echo \"changed $(stty size)\"; exit 6' WINCH; echo ready; while :; do sleep 0.1; done";
    let (container, mut terminal) = start(env, script)?;
    terminal.output.until("ready\r\n")?;
    terminal.resize(44, 99)?;
    terminal.output.until("changed 44 99\r\n")?;
    container.expect_exit(Exit::Code(6))?;
    passed()
}

fn console_size(env: &Env) -> Result<Verdict> {
    let mut bundle = with_terminal(env, "stty size")?;
    bundle.set("/process/consoleSize", json!({"height": 37, "width": 93}));
    let (container, mut terminal) = create(env, &bundle)?;
    ensure!(
        terminal.size()? == (37, 93),
        "the master has the size {:?}",
        terminal.size()?
    );
    container.start()?;
    terminal.output.until("37 93\r\n")?;
    container.expect_exit(Exit::Code(0))?;
    passed()
}

fn interrupt_key(env: &Env) -> Result<Verdict> {
    let (container, mut terminal) = start(
        env,
        "trap 'echo caught; exit 11' INT; echo ready; while :; do read x; done",
    )?;
    terminal.output.until("ready\r\n")?;
    terminal.type_text("\u{3}")?;
    terminal.output.until("caught\r\n")?;
    container.expect_exit(Exit::Code(11))?;
    passed()
}

fn end_of_file(env: &Env) -> Result<Verdict> {
    let (container, mut terminal) = start(env, "echo ready; cat; echo over")?;
    terminal.output.until("ready\r\n")?;
    terminal.type_text("word\n")?;
    terminal.output.until("word\r\nword\r\n")?;
    terminal.type_text("\u{4}")?;
    terminal.output.until("over\r\n")?;
    container.expect_exit(Exit::Code(0))?;
    passed()
}

fn end_of_output(env: &Env) -> Result<Verdict> {
    let (container, mut terminal) = start(env, "seq 20000")?;
    let text = terminal.output.text()?;
    let wanted: String = (1..=20_000).map(|n| format!("{n}\r\n")).collect();
    ensure!(
        text == wanted,
        "{} bytes came from the terminal instead of {}",
        text.len(),
        wanted.len()
    );
    container.expect_exit(Exit::Code(0))?;
    passed()
}

fn dev_console(env: &Env) -> Result<Verdict> {
    let (container, mut terminal) = start(env, "echo through the console > /dev/console; exit 2")?;
    terminal.output.until("through the console\r\n")?;
    container.expect_exit(Exit::Code(2))?;
    passed()
}

fn exec_terminal(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    let socket = env.console()?;
    let pid_file = env.dir.join("exec.pid");
    let (socket_path, file) = (socket.path(), pid_file.to_string_lossy().into_owned());
    let script = "test -t 1 && echo terminal; read line; stty size; exit 8";
    env.runtime
        .call([
            "exec",
            "--tty",
            "--detach",
            "--console-socket",
            &socket_path,
            "--pid-file",
            &file,
        ])
        .args(&[&container.id, "/bin/sh", "-c", script])
        .ok()?;
    let mut terminal = socket.accept()?;
    terminal.output.until("terminal\r\n")?;
    terminal.resize(20, 70)?;
    // The new size may need a moment to cross into a VM; stty is asked after the line.
    terminal.type_text("\n")?;
    terminal.output.until("20 70\r\n")?;
    let exit = crate::reaper::wait(crate::container::read_pid(&pid_file)?, env.deadline())?;
    ensure!(exit == Exit::Code(8), "the exec ended with {exit}");
    passed()
}

/// `run` in a terminal of the user's own, between which and the container's the runtime relays.
fn run_in_terminal(env: &Env, script: &str) -> Result<(OwnedFd, Reader, Running)> {
    let bundle = with_terminal(env, script)?;
    bundle.write()?;
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .context("open a terminal")?;
    grantpt(&master)
        .and_then(|()| unlockpt(&master))
        .context("unlock the terminal")?;
    tcsetwinsize(&master, winsize(31, 87)).context("set the size")?;
    let name = ptsname(&master, Vec::new()).context("name the terminal")?;
    let path = PathBuf::from(name.to_string_lossy().into_owned());
    let slave: OwnedFd = OpenOptions::new().read(true).write(true).open(path)?.into();
    let end = || -> Result<Stdio> { Ok(Stdio::from(slave.try_clone()?)) };
    let running = env
        .runtime
        .call(["run", "--bundle", &bundle.path.to_string_lossy(), &env.id()])
        .stdin(end()?)
        .stdout(end()?)
        .stderr(end()?)
        .spawn()?;
    let output = Reader::new(master.try_clone()?, env.deadline());
    Ok((master, output, running))
}

fn foreground_run(env: &Env) -> Result<Verdict> {
    let script = "test -t 0 && echo terminal; read line; echo \"got <$line>\"; exit 12";
    let (master, mut output, running) = run_in_terminal(env, script)?;
    output.until("terminal\r\n")?;
    write_all(&master, b"words\n", env.deadline())?;
    output.until("got <words>")?;
    running.wait()?.code(12)?;
    passed()
}

fn foreground_size(env: &Env) -> Result<Verdict> {
    if env.is_reference("crun")? {
        return skipped("crun gives the terminal of a foreground run no size");
    }
    let script = "until [ \"$(stty size)\" = '31 87' ]; do sleep 0.1; done; echo first; \
                  until [ \"$(stty size)\" = '40 90' ]; do sleep 0.1; done; exit 13";
    let (master, mut output, running) = run_in_terminal(env, script)?;
    output
        .until("first\r\n")
        .context("the container's terminal does not take the caller's size")?;
    tcsetwinsize(&master, winsize(40, 90)).context("set the size")?;
    // The kernel sends it only to the foreground group of the caller's session, which is another one here.
    running.signal(Signal::WINCH)?;
    running
        .wait()
        .context("the container's terminal does not follow a change of the caller's")?
        .code(13)?;
    passed()
}

const fn winsize(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
