//! How a process's stdio is found on the host, the same for create, run and exec.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use sandbox::control::HostStdio;

use crate::process::terminal::{self, RawMode};

/// The descriptors of one process.
#[derive(Debug)]
pub struct Attached {
    /// What they are.
    pub stdio: HostStdio,
    own: Vec<OwnedFd>,
    /// The terminal that a proxy in the background takes.
    pub console: Option<OwnedFd>,
    /// Held while a process uses the caller's own terminal.
    pub raw: Option<RawMode>,
}

impl Attached {
    /// The caller's stdio, a terminal behind a console socket, or the caller's own terminal; what runc refuses is
    /// refused. `size` is rows and columns.
    pub fn new(
        wants_terminal: bool,
        console_socket: Option<&Path>,
        detach: bool,
        size: Option<(u16, u16)>,
    ) -> Result<Self> {
        let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().context("cannot copy stdio");
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        match (wants_terminal, console_socket) {
            (true, Some(socket)) => {
                let console = terminal::console(socket, size)?;
                let own = vec![copy(console.as_fd())?, copy(console.as_fd())?];
                Ok(Self {
                    stdio: HostStdio::Terminal,
                    own,
                    console: Some(console),
                    raw: None,
                })
            }
            (true, None) if detach => {
                bail!("cannot allocate tty if runc will detach without setting console socket")
            }
            (true, None) => {
                let own = vec![copy(stdin.as_fd())?, copy(stdout.as_fd())?];
                Ok(Self {
                    stdio: HostStdio::Terminal,
                    own,
                    console: None,
                    raw: RawMode::on_stdin()?,
                })
            }
            (false, Some(_)) => {
                bail!("cannot use console socket if runc will not detach or allocate tty")
            }
            (false, None) => {
                let own = vec![
                    copy(stdin.as_fd())?,
                    copy(stdout.as_fd())?,
                    copy(stderr.as_fd())?,
                ];
                Ok(Self {
                    stdio: HostStdio::Pipes,
                    own,
                    console: None,
                    raw: None,
                })
            }
        }
    }

    /// The caller's stdio as a person means it: stdin only when `interactive`, and the caller's terminal with `tty`.
    pub fn to_caller(interactive: bool, tty: bool) -> Result<Self> {
        let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().context("cannot copy stdio");
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let raw = if tty { RawMode::on_stdin()? } else { None };
        // At a terminal, what is typed reaches the container's terminal in any case: Ctrl-C has to.
        let input = if interactive || raw.is_some() {
            copy(stdin.as_fd())?
        } else {
            let null = fs::File::open("/dev/null").context("cannot open /dev/null")?;
            null.into()
        };
        let mut own = vec![input, copy(stdout.as_fd())?];
        if !tty {
            own.push(copy(stderr.as_fd())?);
        }
        Ok(Self {
            stdio: if tty {
                HostStdio::Terminal
            } else {
                HostStdio::Pipes
            },
            own,
            console: None,
            raw,
        })
    }

    /// No stdin, and the output to a log.
    pub fn to_log(path: PathBuf) -> Self {
        Self {
            stdio: HostStdio::Log(path),
            own: Vec::new(),
            console: None,
            raw: None,
        }
    }

    /// In the order that [`HostStdio`] says.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.own.iter().map(AsFd::as_fd).collect()
    }

    /// Lets go of what the driver has copies of.
    pub fn release(&mut self) {
        self.own.clear();
    }
}

/// Writes a pid where an engine waits for it: the file appears with its content.
pub fn write_pid(path: Option<&Path>, pid: i32) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{pid}"));
    let temporary = path.with_file_name(name);
    let written = fs::File::create(&temporary)
        .and_then(|mut file| write!(file, "{pid}"))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Not there when it could not be made.
        let _missing = fs::remove_file(&temporary);
    }
    written.with_context(|| format!("cannot write pid file {}", path.display()))
}

/// Refuses descriptors beyond stdio.
pub fn no_further_descriptors(count: u32) -> Result<()> {
    if count > 0 {
        bail!("unsupported: --preserve-fds {count}: descriptors end at the virtual machine's wall");
    }
    Ok(())
}
