//! Signals and terminal sizes.

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::{Container, ContainerError, Containers};

/// Largest signal of Linux.
const SIGNAL_MAX: u32 = 64;

impl Containers {
    /// Sends `signal` to a process or, with `all`, to every process of the container.
    ///
    /// # Errors
    /// When there is no such process, or it has ended.
    pub fn signal(
        &self,
        id: &str,
        exec: &str,
        signal: u32,
        all: bool,
    ) -> Result<(), ContainerError> {
        let container = self.get(id)?;
        let number = i32::try_from(signal).unwrap_or_default();
        if !(1..=SIGNAL_MAX).contains(&signal) {
            return Err(ContainerError::invalid(
                "signal",
                format!("{signal} is no signal"),
            ));
        }
        if all {
            return container.signal_all(number);
        }
        let process = container.process(exec)?;
        if process.has_ended() {
            return Err(container.ended(exec));
        }
        // Nobody else reaps, and nothing is reaped between the question and this.
        match send(process.pid(), number) {
            Err(Errno::SRCH) => Err(container.ended(exec)),
            done => done.map_err(|errno| ContainerError::Kernel {
                doing: "send the signal",
                source: errno.into(),
            }),
        }
    }

    /// Sets the size of a process's terminal.
    ///
    /// # Errors
    /// When there is no such process or it has no terminal.
    pub fn resize(
        &self,
        id: &str,
        exec: &str,
        rows: u32,
        columns: u32,
    ) -> Result<(), ContainerError> {
        let container = self.get(id)?;
        let process = container.process(exec)?;
        let Some(terminal) = process.terminal() else {
            return Err(ContainerError::Process {
                id: id.to_owned(),
                exec: exec.to_owned(),
                problem: "has no terminal",
            });
        };
        terminal
            .resize(rows, columns)
            .map_err(ContainerError::kernel("set the size of the terminal"))
    }
}

impl Container {
    fn ended(&self, exec: &str) -> ContainerError {
        ContainerError::Process {
            id: self.id.clone(),
            exec: exec.to_owned(),
            problem: "has ended",
        }
    }

    fn signal_all(&self, number: i32) -> Result<(), ContainerError> {
        let cgroup = &self.cgroup;
        if number == libc::SIGKILL {
            return cgroup
                .kill()
                .map_err(ContainerError::file("kill the processes in", cgroup.path()));
        }
        let processes = cgroup
            .processes()
            .map_err(ContainerError::file("list the processes in", cgroup.path()))?;
        for pid in processes {
            // One that has ended meanwhile needs none.
            let _ = send(pid, number);
        }
        Ok(())
    }
}

fn send(pid: i32, signal: i32) -> Result<(), Errno> {
    let pid = Pid::from_raw(pid).ok_or(Errno::SRCH)?;
    match Signal::from_named_raw(signal) {
        Some(signal) => kill_process(pid, signal),
        None => crate::syscalls::kill_realtime(pid.as_raw_nonzero().get(), signal),
    }
}
