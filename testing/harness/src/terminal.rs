//! A terminal for commands that want one.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::processes::wait_until;

/// A command at a terminal of its own. Dropped early, it is killed.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a command at a terminal of `rows` and `columns` that is its controlling one.
    ///
    /// # Panics
    /// When that does not work; util-linux's `setsid` is needed.
    #[must_use]
    pub fn start(command: &Command, rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a terminal");
        grantpt(&master).expect("a terminal");
        unlockpt(&master).expect("a terminal");
        let name = ptsname(&master, Vec::new()).expect("a terminal's name");
        let name = name.into_string().expect("a name that is text");
        let slave = || {
            File::options()
                .read(true)
                .write(true)
                .open(&name)
                .expect("the terminal's other end")
        };
        let first = slave();
        let master = File::from(master);
        set_size(&master, rows, columns);
        let mut program = Command::new("setsid");
        program
            .args(["--ctty", "--wait"])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => program.env(name, value),
                None => program.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            program.current_dir(folder);
        }
        let child = program
            .stdin(Stdio::from(slave()))
            .stdout(Stdio::from(slave()))
            .stderr(Stdio::from(slave()))
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {program:?}: {error}"));
        drop(first);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (sink, mut source) = (
            Arc::clone(&shown),
            master.try_clone().expect("a copy of the terminal"),
        );
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // An error: nobody has the other end open any more.
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                sink.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend_from_slice(&buffer[..count]);
            }
        });
        Self {
            master,
            child,
            shown,
        }
    }

    /// All that was shown so far.
    #[must_use]
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap_or_else(PoisonError::into_inner))
            .into_owned()
    }

    /// Waits until this text is shown.
    ///
    /// # Panics
    /// When it does not appear.
    pub fn expect(&self, text: &str) {
        let came = wait_until(Duration::from_secs(180), || self.shown().contains(text));
        assert!(came, "{text:?} is not shown: {:?}", self.shown());
    }

    /// Types.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn write(&mut self, text: &str) {
        self.master
            .write_all(text.as_bytes())
            .expect("the terminal takes input");
    }

    /// Changes its size, as a person who drags a window's corner.
    pub fn resize(&self, rows: u16, columns: u16) {
        set_size(&self.master, rows, columns);
    }

    /// Waits for the command's end; answers its exit code.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn finish(mut self) -> i32 {
        let mut status = None;
        wait_until(Duration::from_secs(180), || {
            status = self.child.try_wait().expect("a child's state");
            status.is_some()
        });
        let status =
            status.unwrap_or_else(|| panic!("still at work, having shown {:?}", self.shown()));
        status.code().unwrap_or(-1)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _killed = self.child.kill();
            let _reaped = self.child.wait();
        }
    }
}

fn set_size(terminal: &File, rows: u16, columns: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).expect("a terminal's size");
}
