//! Commands that cannot hang a test.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::patience::patient;

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// Bytes that are no text are replaced.
    pub stdout: String,
    /// Bytes that are no text are replaced.
    pub stderr: String,
    /// From its start to its end.
    pub elapsed: Duration,
}

/// A command that runs. Dropped early, it is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    started: Instant,
    stdout: mpsc::Receiver<Vec<u8>>,
    stderr: mpsc::Receiver<Vec<u8>>,
    name: String,
    /// Its stdin, unless it was all given already.
    pub stdin: Option<std::process::ChildStdin>,
}

/// Starts a command with pipes for its stdio; `stdin`: all of it, or nothing to keep it open.
///
/// # Panics
/// When it does not start.
#[must_use]
pub fn start(command: &mut Command, stdin: Option<Vec<u8>>) -> Running {
    let name = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
    let mut pipe = child.stdin.take();
    if let Some(bytes) = stdin
        && let Some(mut pipe) = pipe.take()
    {
        // A command that does not read is none of our business.
        thread::spawn(move || pipe.write_all(&bytes));
    }
    Running {
        stdout: collect(child.stdout.take()),
        stderr: collect(child.stderr.take()),
        child,
        started: Instant::now(),
        name,
        stdin: pipe,
    }
}

/// Starts a command with an empty stdin and waits for its end.
///
/// # Panics
/// When it does not start or takes longer than `limit`, see [`patient`].
#[must_use]
pub fn finish(command: &mut Command, limit: Duration) -> Outcome {
    start(command, Some(Vec::new())).finish(limit)
}

impl Running {
    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Sends it a signal by number.
    ///
    /// # Panics
    /// When there is no such signal or process.
    pub fn signal(&self, number: i32) {
        crate::processes::signal(self.pid(), number);
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Closes its stdin and waits for its end.
    ///
    /// # Panics
    /// When that takes longer than `limit`, see [`patient`]; it is killed then.
    #[must_use]
    pub fn finish(mut self, limit: Duration) -> Outcome {
        self.stdin = None;
        let limit = patient(limit);
        let deadline = Instant::now() + limit;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                other => {
                    let _killed = self.child.kill();
                    panic!(
                        "{} did not end within {limit:?} ({other:?}); stdout {:?}, stderr {:?}",
                        self.name,
                        received(&self.stdout, Duration::from_secs(5)),
                        received(&self.stderr, Duration::from_secs(5)),
                    );
                }
            }
        };
        let elapsed = self.started.elapsed();
        // A background process that kept the pipe would hang us here.
        let patience = patient(Duration::from_secs(30));
        Outcome {
            code: status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
            stdout: received(&self.stdout, patience),
            stderr: received(&self.stderr, patience),
            elapsed,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_running() {
            let _killed = self.child.kill();
        }
        let _reaped = self.child.wait();
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _partial = pipe.read_to_end(&mut bytes);
        }
        let _nobody_asks = sender.send(bytes);
    });
    receiver
}

fn received(pipe: &mpsc::Receiver<Vec<u8>>, limit: Duration) -> String {
    match pipe.recv_timeout(limit) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => panic!("somebody keeps the command's output open"),
    }
}
