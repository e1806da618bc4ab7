//! One process of a container that the host knows by name.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::stdio::Running;
use super::{Exit, Pipes, Terminal};
use crate::cgroup::OomCount;

/// How a process ended, and how much it had written then.
#[derive(Debug, Clone, Copy)]
pub struct Finished {
    /// The end.
    pub exit: Exit,
    /// Bytes written to standard output, or to the terminal.
    pub stdout: u64,
    /// Bytes written to standard error.
    pub stderr: u64,
    /// Whether it was killed for want of memory.
    pub oom_killed: bool,
}

/// What will be known of a process's end.
#[derive(Debug)]
pub struct End {
    /// The end itself.
    pub exit: oneshot::Receiver<Exit>,
    /// Whether memory was the reason.
    pub oom: Arc<OomCount>,
}

/// How the kernel ends a process for want of memory.
const SIGKILL: u32 = 9;

#[derive(Debug)]
enum Face {
    Pipes(Running),
    Terminal(Terminal),
}

impl Face {
    async fn finish(&self, exit: Exit, oom_killed: bool) -> Finished {
        let (stdout, stderr) = match self {
            Self::Pipes(pipes) => {
                // The process is gone, and nobody answers for what a child of it may read.
                if let Some(stdin) = &pipes.stdin {
                    stdin.abort();
                }
                let total = |output: &Option<super::output::Output>| {
                    output.as_ref().map_or(0, super::output::Output::total)
                };
                (total(&pipes.stdout), total(&pipes.stderr))
            }
            Self::Terminal(terminal) => (terminal.total().await, 0),
        };
        Finished {
            exit,
            stdout,
            stderr,
            oom_killed,
        }
    }
}

/// A process with its stdio.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    face: Arc<Face>,
    finished: watch::Receiver<Option<Finished>>,
    exited: watch::Receiver<Option<Exit>>,
}

impl Process {
    /// A process with pipes; they begin to move bytes.
    #[must_use]
    pub fn with_pipes(pid: i32, end: End, pipes: Pipes) -> Self {
        Self::new(pid, end, Face::Pipes(pipes.run()))
    }

    /// A process with a terminal.
    #[must_use]
    pub fn with_terminal(pid: i32, end: End, terminal: Terminal) -> Self {
        Self::new(pid, end, Face::Terminal(terminal))
    }

    fn new(pid: i32, end: End, face: Face) -> Self {
        let face = Arc::new(face);
        let (finish, finished) = watch::channel(None);
        let (exit, exited) = watch::channel(None);
        let its = Arc::clone(&face);
        tokio::spawn(async move {
            // The reaper lives as long as the agent.
            let Ok(status) = end.exit.await else { return };
            let oom_killed = status.signal == SIGKILL && end.oom.has_risen();
            exit.send_replace(Some(status));
            finish.send_replace(Some(its.finish(status, oom_killed).await));
        });
        Self {
            pid,
            face,
            finished,
            exited,
        }
    }

    /// Its id in the guest.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it has ended, and been reaped.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.exited.borrow().is_some()
    }

    /// Its terminal, if it has one.
    #[must_use]
    pub fn terminal(&self) -> Option<&Terminal> {
        match self.face.as_ref() {
            Face::Terminal(terminal) => Some(terminal),
            Face::Pipes(_) => None,
        }
    }

    /// Waits until it has ended.
    pub async fn ended(&self) {
        let mut exited = self.exited.clone();
        // The sender goes only after it has sent.
        let _ = exited.wait_for(Option::is_some).await;
    }

    /// Waits until it has ended, and tells how much it had written then. The pumps go on: whether
    /// the host takes the rest must not keep it from learning of the end.
    ///
    /// `None` if the agent itself is coming down.
    pub async fn finished(&self) -> Option<Finished> {
        let mut finished = self.finished.clone();
        *finished.wait_for(Option::is_some).await.ok()?
    }
}
