//! A running test host.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use backend_api::{Accelerator, Diagnostics, Tail};
use backend_process::{Child, Confinement, Exit, Program};
use backend_qemu::{QemuBackend, QemuConfig};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::time::{Instant, timeout_at};

use crate::error::{Who, failed};
use crate::{Error, Images, Job, job, qemu, share};

/// How much of the kernel's log and of QEMU's messages is kept for errors.
const KEPT: usize = 16 << 10;

/// How long the last words of a dead process may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How often the test host is interrupted. The processor that TCG of QEMU 7.2 emulates forgets an interrupt now and then:
/// leaving a nested guest changes the set of those that are waiting without regard to the thread that adds to it. If it
/// was the timer's, and nothing is left to be done, nothing would happen any more. The next interrupt, of any kind, makes
/// it look again.
const PULSE: Duration = Duration::from_millis(100);

/// The same where instructions are counted, and a pulse is a disturbance.
const COUNTED_PULSE: Duration = Duration::from_secs(1);

/// The longest line that the first program writes.
const LINE: u64 = 256;

/// What every test host is made from.
#[derive(Debug, Clone)]
pub struct Config {
    /// This crate's program, which serves the files.
    pub program: PathBuf,
    /// What it boots from.
    pub images: Images,
    /// Its memory.
    pub memory_mib: u64,
    /// Whether its time is the number of instructions: slow, but what it measures does not depend on this machine's load.
    pub counted: bool,
    /// The folder that is shared writable.
    pub results: PathBuf,
    /// Folders that are shown even if they lie in one that the test host has for itself, as `/tmp`.
    pub folders: Vec<PathBuf>,
    /// How long it may take to boot.
    pub boot: Duration,
}

/// A test host whose command has just started. Dropping it ends it.
#[derive(Debug)]
pub struct Host {
    machine: Machine,
    limit: Option<Duration>,
    stdout: Option<UnixStream>,
    stderr: Option<UnixStream>,
    terminal: Option<UnixStream>,
}

/// What a test host consists of.
#[derive(Debug)]
struct Machine {
    qemu: Child,
    root: Child,
    results: Child,
    status: BufReader<OwnedReadHalf>,
    console: Tail,
    messages: Tail,
    phase: String,
}

impl Host {
    /// Boots it, up to the moment in which it starts the command. Call it on a thread that outlives it, inside a tokio
    /// runtime with I/O and time enabled. A boot that hangs is tried once more.
    ///
    /// # Errors
    /// [`Error::Hung`] names the phase. Nothing is left of it then.
    pub async fn boot(config: &Config, job: &Job) -> Result<Self, Error> {
        match Self::boot_once(config, job).await {
            Err(error @ Error::Hung { .. }) => {
                log::warn!("{error}\ntrying once more");
                Self::boot_once(config, job).await
            }
            result => result,
        }
    }

    async fn boot_once(config: &Config, job: &Job) -> Result<Self, Error> {
        let deadline = Instant::now() + config.boot;
        let mut host = Self::start(config, job).await?;
        let machine = &mut host.machine;
        loop {
            match timeout_at(deadline, machine.next()).await {
                Ok(Ok(Event::Phase)) if machine.phase == "command" => return Ok(host),
                Ok(Ok(Event::Phase)) => {}
                Ok(Ok(Event::Exit(code))) => {
                    return Err(Error::Status {
                        said: format!("exit {code}"),
                    });
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    return Err(Error::Hung {
                        phase: machine.phase.clone(),
                        waited: config.boot,
                        said: machine.said(),
                    });
                }
            }
        }
    }

    async fn start(config: &Config, job: &Job) -> Result<Self, Error> {
        let folders: Vec<_> = config
            .folders
            .iter()
            .chain([&job.directory, &config.images.modules])
            .map(PathBuf::as_path)
            .collect();
        let scripts = job::scripts(job, &config.images.modules, &config.results, &folders);

        let (messages_end, messages) = tokio::net::unix::pipe::pipe()
            .and_then(|(sender, receiver)| Ok((sender.into_blocking_fd()?, receiver)))
            .map_err(failed("make a pipe"))?;
        let share = |arguments: Vec<OsString>| {
            let messages = messages_end.try_clone().map_err(failed("make a pipe"))?;
            share::start(&config.program, arguments, messages)
                .map_err(failed("start a file server"))
        };
        let (root, root_socket) = share(vec!["serve".into()])?;
        let (results, results_socket) = share(vec!["serve".into(), config.results.clone().into()])?;

        let mut inherited = vec![root_socket, results_socket];
        let mut channel = || {
            let (ours, theirs) = UnixStream::pair().map_err(failed("make a socket"))?;
            let theirs = theirs
                .into_std()
                .and_then(|socket| socket.set_nonblocking(false).map(|()| socket))
                .map_err(failed("make a socket"))?;
            let theirs = OwnedFd::from(theirs);
            let number = theirs.as_raw_fd();
            inherited.push(theirs);
            Ok::<_, Error>((ours, number))
        };
        let (console, console_end) = channel()?;
        let (status, status_end) = channel()?;
        let (stdout, stdout_end) = channel()?;
        let (stderr, stderr_end) = channel()?;
        let terminal = job.terminal.map(|_| channel()).transpose()?;
        let arguments = qemu::arguments(&qemu::Machine {
            kernel: &config.images.kernel,
            initramfs: &config.images.initramfs,
            memory_mib: config.memory_mib,
            tsc_khz: backend_qemu::tsc_khz()
                .await
                .map_err(failed("find the rate of the time stamp counter"))?,
            counted: config.counted,
            sizes: (scripts.settings.len(), scripts.job.len()),
            console: console_end,
            status: status_end,
            stdout: stdout_end,
            stderr: stderr_end,
            terminal: terminal.as_ref().map(|(_, end)| *end),
            root: inherited[0].as_raw_fd(),
            results: inherited[1].as_raw_fd(),
        });
        let program = QemuBackend::new(QemuConfig {
            binary: None,
            accelerator: Accelerator::Emulation,
        })
        .program()
        .map_err(Error::Qemu)?;
        let qemu = Program {
            path: program,
            args: arguments,
            stdin: None,
            stderr: Some(messages_end),
            inherited,
            network: None,
            groups: Vec::new(),
            confinement: Confinement::default(),
        }
        .spawn()
        .map_err(failed("start QEMU"))?;
        let (status, mut writer) = status.into_split();
        let both = [scripts.settings, scripts.job].concat();
        let pause = if config.counted { COUNTED_PULSE } else { PULSE };
        tokio::spawn(async move {
            // Until QEMU ends, which is noticed elsewhere.
            let mut written = writer.write_all(&both).await;
            while written.is_ok() {
                tokio::time::sleep(pause).await;
                written = writer.write_all(b"\n").await;
            }
        });
        Ok(Self {
            machine: Machine {
                qemu,
                root,
                results,
                status: BufReader::new(status),
                console: Tail::of(console, KEPT),
                messages: Tail::of(messages, KEPT),
                phase: "kernel".to_owned(),
            },
            limit: job.limit,
            stdout: Some(stdout),
            stderr: Some(stderr),
            terminal: terminal.map(|(socket, _)| socket),
        })
    }

    /// What the command writes to its standard output; the first call gets it. It has to be read, or the command waits.
    pub fn stdout(&mut self) -> Option<UnixStream> {
        self.stdout.take()
    }

    /// What the command writes to its standard error, likewise.
    pub fn stderr(&mut self) -> Option<UnixStream> {
        self.stderr.take()
    }

    /// The command's terminal, if it has one, likewise.
    pub fn terminal(&mut self) -> Option<UnixStream> {
        self.terminal.take()
    }

    /// Waits for the command's end and ends the test host. What the command wrote is in the sockets then, up to their
    /// end.
    ///
    /// # Errors
    /// [`Error::Overdue`] when it ran too long, [`Error::Died`] when the test host did not survive it.
    pub async fn wait(mut self) -> Result<i32, Error> {
        let machine = &mut self.machine;
        let end = async {
            loop {
                if let Event::Exit(code) = machine.next().await? {
                    return Ok(code);
                }
            }
        };
        let code = match self.limit {
            None => end.await?,
            Some(limit) => match tokio::time::timeout(limit, end).await {
                Ok(code) => code?,
                Err(_) => {
                    return Err(Error::Overdue {
                        limit,
                        phase: machine.phase.clone(),
                    });
                }
            },
        };
        machine.qemu.kill().await.map_err(failed("end QEMU"))?;
        Ok(code)
    }
}

/// What the first program says.
enum Event {
    /// It has come to the next phase.
    Phase,
    /// The command has ended.
    Exit(i32),
}

impl Machine {
    /// Waits for the first program to say something. Not cancel-safe between lines of it, which are written whole.
    async fn next(&mut self) -> Result<Event, Error> {
        let mut line = String::new();
        let mut status = (&mut self.status).take(LINE);
        let (who, exit) = tokio::select! {
            biased;
            read = status.read_line(&mut line) => {
                // A QEMU that ends with the job unread resets the connection.
                if matches!(read, Ok(1..)) {
                    return self.understand(line.trim_end());
                }
                (Who::Qemu, self.qemu.wait().await)
            }
            exit = self.qemu.wait() => (Who::Qemu, exit),
            exit = self.root.wait() => (Who::Root, exit),
            exit = self.results.wait() => (Who::Results, exit),
        };
        self.died(who, exit.map_err(failed("wait for a process"))?)
            .await
    }

    fn understand(&mut self, line: &str) -> Result<Event, Error> {
        if let Some(phase) = line.strip_prefix("phase ") {
            self.phase = phase.to_owned();
            return Ok(Event::Phase);
        }
        line.strip_prefix("exit ")
            .and_then(|code| code.parse().ok())
            .map(Event::Exit)
            .ok_or_else(|| Error::Status {
                said: line.to_owned(),
            })
    }

    async fn died(&mut self, who: Who, exit: Exit) -> Result<Event, Error> {
        if who == Who::Qemu {
            self.console.settle(LAST_WORDS).await;
        }
        self.messages.settle(LAST_WORDS).await;
        Err(Error::Died {
            who,
            exit,
            phase: self.phase.clone(),
            said: self.said(),
        })
    }

    fn said(&self) -> Diagnostics {
        Diagnostics::new(&self.console, &self.messages)
    }
}
