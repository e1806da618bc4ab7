//! The runtime under test: a command with captured output and a deadline.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::reaper::{self, Exit};

/// How much of each stream a failure shows.
const SHOWN: usize = 2000;

/// A runtime command with a state directory of its own.
#[derive(Debug)]
pub struct Runtime {
    program: PathBuf,
    arguments: Vec<String>,
    root: PathBuf,
    captures: PathBuf,
    deadline: Instant,
    calls: AtomicU32,
    transcript: Mutex<Vec<String>>,
}

impl Runtime {
    /// `program` with `--root DIR/root`, and captured output in `DIR/captures`.
    pub fn new(
        program: PathBuf,
        arguments: Vec<String>,
        dir: &Path,
        deadline: Instant,
    ) -> Result<Self> {
        let captures = dir.join("captures");
        fs::create_dir_all(&captures).with_context(|| format!("create {}", captures.display()))?;
        Ok(Self {
            program,
            arguments,
            root: dir.join("root"),
            captures,
            deadline,
            calls: AtomicU32::new(0),
            transcript: Mutex::default(),
        })
    }

    /// The state directory given by `--root`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The instant by which every wait of the case ends.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Prepare a command of the runtime.
    pub fn call<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Call<'_> {
        Call {
            runtime: self,
            root: self.root.clone(),
            globals: Vec::new(),
            arguments: arguments
                .into_iter()
                .map(|argument| argument.as_ref().to_owned())
                .collect(),
            stdin: None,
            stdout: None,
            stderr: None,
            dir: None,
            inherited: Vec::new(),
            deadline: self.deadline,
        }
    }

    /// What `--version` prints.
    pub fn version(&self) -> Result<String> {
        let mut call = self.call(["--version"]);
        call.root = PathBuf::new();
        Ok(call.run()?.text())
    }

    /// What was run so far, for the report of a failure.
    pub fn transcript(&self) -> Vec<String> {
        self.transcript
            .lock()
            .map(|lines| lines.clone())
            .unwrap_or_default()
    }

    fn record(&self, line: String) {
        if let Ok(mut lines) = self.transcript.lock() {
            lines.push(line);
        }
    }
}

/// A command of the runtime before it runs.
#[derive(Debug)]
pub struct Call<'r> {
    runtime: &'r Runtime,
    root: PathBuf,
    globals: Vec<OsString>,
    arguments: Vec<OsString>,
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
    dir: Option<PathBuf>,
    inherited: Vec<PathBuf>,
    deadline: Instant,
}

impl Call<'_> {
    /// Append arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: &[S]) -> Self {
        self.arguments.extend(
            arguments
                .iter()
                .map(|argument| argument.as_ref().to_owned()),
        );
        self
    }

    /// Add global flags, which stand before the command.
    pub fn global<S: AsRef<OsStr>>(mut self, flags: impl IntoIterator<Item = S>) -> Self {
        self.globals
            .extend(flags.into_iter().map(|flag| flag.as_ref().to_owned()));
        self
    }

    /// Use another state directory.
    pub fn root(mut self, root: &Path) -> Self {
        root.clone_into(&mut self.root);
        self
    }

    /// Standard input; nothing (`/dev/null`) when not called.
    pub fn stdin(mut self, stdin: Stdio) -> Self {
        self.stdin = Some(stdin);
        self
    }

    /// Standard output; captured when not called.
    pub fn stdout(mut self, stdout: Stdio) -> Self {
        self.stdout = Some(stdout);
        self
    }

    /// Standard error; captured when not called.
    pub fn stderr(mut self, stderr: Stdio) -> Self {
        self.stderr = Some(stderr);
        self
    }

    /// The working directory.
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// Files that the runtime inherits as descriptors 3, 4, …
    pub fn inherit(mut self, files: &[&Path]) -> Self {
        self.inherited = files.iter().map(|file| (*file).to_owned()).collect();
        self
    }

    /// Bound this command more tightly than the case.
    pub fn within(mut self, time: Duration) -> Self {
        self.deadline = self.deadline.min(Instant::now() + time);
        self
    }

    fn command(&self) -> Command {
        let mut command = if self.inherited.is_empty() {
            Command::new(&self.runtime.program)
        } else {
            // A shell places the descriptors, as nothing in safe Rust does between fork and exec.
            let redirections: String = self
                .inherited
                .iter()
                .enumerate()
                .map(|(n, _)| format!(" {}<\"${}\"", n + 3, n + 1))
                .collect();
            let script = format!(
                "exec{redirections}; shift {}; exec \"$@\"",
                self.inherited.len()
            );
            let mut shell = Command::new("/bin/sh");
            shell
                .arg("-c")
                .arg(script)
                .arg("sh")
                .args(&self.inherited)
                .arg(&self.runtime.program);
            shell
        };
        command.args(&self.runtime.arguments);
        if !self.root.as_os_str().is_empty() {
            command.arg("--root").arg(&self.root);
        }
        command.args(&self.globals).args(&self.arguments);
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }

    /// Run it to its end.
    pub fn run(self) -> Result<Finished> {
        self.spawn()?.wait()
    }

    /// Run it to its end and demand success.
    pub fn ok(self) -> Result<Finished> {
        self.run()?.ok()
    }

    /// Start it.
    pub fn spawn(mut self) -> Result<Running> {
        let number = self.runtime.calls.fetch_add(1, Ordering::Relaxed);
        let (out, err) = (
            self.runtime.captures.join(format!("{number}.out")),
            self.runtime.captures.join(format!("{number}.err")),
        );
        let mut command = self.command();
        command.stdin(self.stdin.take().unwrap_or_else(Stdio::null));
        command.stdout(match self.stdout.take() {
            Some(stdio) => stdio,
            None => Stdio::from(
                File::create(&out).with_context(|| format!("create {}", out.display()))?,
            ),
        });
        command.stderr(match self.stderr.take() {
            Some(stdio) => stdio,
            None => Stdio::from(
                File::create(&err).with_context(|| format!("create {}", err.display()))?,
            ),
        });
        let words: Vec<_> = self
            .arguments
            .iter()
            .map(|word| word.to_string_lossy())
            .collect();
        let line: String = words.join(" ").chars().take(300).collect();
        self.runtime.record(format!("$ {line}"));
        let child = command
            .spawn()
            .with_context(|| format!("run {}", self.runtime.program.display()))?;
        // The builder holds copies of pipe ends that would keep streams from ending.
        drop(command);
        Ok(Running {
            child,
            out,
            err,
            line,
            deadline: self.deadline,
        })
    }
}

/// A command of the runtime that was started.
#[derive(Debug)]
pub struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
    line: String,
    deadline: Instant,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> Result<i32> {
        i32::try_from(self.child.id()).context("pid out of range")
    }

    /// Send it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        reaper::signal(self.pid()?, signal);
        Ok(())
    }

    /// Wait for its end.
    pub fn wait(self) -> Result<Finished> {
        let pid = self.pid()?;
        let exit = match reaper::wait(pid, self.deadline) {
            Ok(exit) => exit,
            Err(error) => {
                reaper::signal(pid, Signal::KILL);
                let so_far = fs::read(&self.err).unwrap_or_default();
                return Err(error.context(format!(
                    "`{}` did not end; its stderr so far: {}",
                    self.line,
                    shorten(&String::from_utf8_lossy(&so_far))
                )));
            }
        };
        Ok(Finished {
            exit,
            stdout: fs::read(&self.out).unwrap_or_default(),
            stderr: String::from_utf8_lossy(&fs::read(&self.err).unwrap_or_default()).into_owned(),
            line: self.line,
        })
    }
}

/// A command of the runtime that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub exit: Exit,
    /// What it wrote to standard output, when captured.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error, when captured.
    pub stderr: String,
    line: String,
}

impl Finished {
    /// Demand exit code 0.
    pub fn ok(self) -> Result<Self> {
        self.code(0)
    }

    /// Demand this exit code.
    pub fn code(self, wanted: i32) -> Result<Self> {
        ensure!(
            self.exit == Exit::Code(wanted),
            "`{}` ended with {} instead of exit code {wanted}\n    stdout: {}\n    stderr: {}",
            self.line,
            self.exit,
            shorten(&self.text()),
            shorten(&self.stderr)
        );
        Ok(self)
    }

    /// Demand a non-zero exit code and a message on stderr that names one of `things` (in any letter case).
    pub fn refused(self, things: &[&str]) -> Result<Self> {
        ensure!(
            matches!(self.exit, Exit::Code(code) if code != 0),
            "`{}` should have been refused but ended with {}\n    stdout: {}\n    stderr: {}",
            self.line,
            self.exit,
            shorten(&self.text()),
            shorten(&self.stderr)
        );
        let message = self.stderr.to_lowercase();
        ensure!(
            things
                .iter()
                .any(|thing| message.contains(&thing.to_lowercase())),
            "`{}` was refused, but its message names none of {things:?}: {}",
            self.line,
            shorten(&self.stderr)
        );
        Ok(self)
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard output as one JSON value.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.stdout)
            .with_context(|| format!("`{}` printed no JSON: {}", self.line, shorten(&self.text())))
    }
}

/// The end of a long text.
pub fn shorten(text: &str) -> String {
    let text = text.trim_end();
    match text.char_indices().rev().nth(SHOWN) {
        Some((at, _)) => format!("…{}", &text[at..]),
        None => text.to_owned(),
    }
}
