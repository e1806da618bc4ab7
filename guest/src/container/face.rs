//! A process's side of the link while the process is being made.

use std::path::PathBuf;

use cofferdam_protocol::Stdio as Tokens;
use cofferdam_protocol::link::LinkStream;
use oci_spec::runtime::Box as Size;

use super::{ContainerError, Containers};
use crate::helper::Stdio;
use crate::process::{ConsoleSocket, End, Ends, Pipes, Process, Terminal};

/// The process's ends, which it inherits, and ours.
pub(super) struct Face {
    stdio: Stdio,
    owner: (u32, u32),
    side: Side,
}

enum Side {
    Pipes(Box<Pipes>),
    Terminal(ConsoleSocket, Option<LinkStream>),
}

impl Containers {
    /// Takes the streams that `tokens` name and makes what stands at their other end, for a
    /// process of the user `owner`.
    pub(super) async fn face(
        &self,
        terminal: bool,
        tokens: &Tokens,
        owner: (u32, u32),
    ) -> Result<Face, ContainerError> {
        if !terminal {
            let ends = Ends {
                stdin: self.streams.take(tokens.stdin).await?,
                stdout: self.streams.take(tokens.stdout).await?,
                stderr: self.streams.take(tokens.stderr).await?,
            };
            let made = Pipes::new(ends, owner);
            let (pipes, stdio) = made.map_err(ContainerError::kernel("make pipes"))?;
            let side = Side::Pipes(Box::new(pipes));
            return Ok(Face { stdio, owner, side });
        }
        if tokens.stdout != 0 || tokens.stderr != 0 {
            let problem = "a terminal has one stream, which is that of stdin";
            return Err(ContainerError::invalid("stdio", problem));
        }
        let path = self.console_path();
        let socket = ConsoleSocket::bind(path.clone());
        let socket = socket.map_err(ContainerError::file("listen at", path))?;
        Ok(Face {
            stdio: Stdio::null().map_err(ContainerError::file("open", "/dev/null"))?,
            owner,
            side: Side::Terminal(socket, self.streams.take(tokens.stdin).await?),
        })
    }
}

impl Face {
    /// Where the process is to send its terminal, if it is to have one.
    pub(super) fn console(&self) -> Option<PathBuf> {
        match &self.side {
            Side::Pipes(_) => None,
            Side::Terminal(socket, _) => Some(socket.path().to_owned()),
        }
    }

    /// What the process inherits.
    pub(super) fn stdio(&self) -> &Stdio {
        &self.stdio
    }

    /// The process `pid` exists: its stdio begins to move.
    pub(super) async fn process(
        self,
        pid: i32,
        end: End,
        size: Option<Size>,
    ) -> Result<Process, ContainerError> {
        // An end of file comes only when nobody but the process has its ends.
        drop(self.stdio);
        let (socket, stream) = match self.side {
            Side::Pipes(pipes) => return Ok(Process::with_pipes(pid, end, *pipes)),
            Side::Terminal(socket, stream) => (socket, stream),
        };
        let controller = socket.receive().await;
        let controller = controller.map_err(ContainerError::kernel("receive the terminal"))?;
        let terminal = Terminal::new(controller, stream, self.owner)
            .map_err(ContainerError::kernel("use the terminal"))?;
        if let Some(size) = size {
            let number = |number| u32::try_from(number).unwrap_or(u32::MAX);
            terminal
                .resize(number(size.height()), number(size.width()))
                .map_err(ContainerError::kernel("set the size of the terminal"))?;
        }
        Ok(Process::with_terminal(pid, end, terminal))
    }
}
