//! One process in a container.

use std::sync::Arc;

use cofferdam_protocol::ProcessRequest;
use cofferdam_protocol::link::LinkStream;
use cofferdam_protocol::{ResizePtyRequest, SignalProcessRequest};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

use crate::error::SandboxError;
use crate::sandbox::guest::Guest;
use crate::state::ExitStatus;
use crate::stdio::{self, End, Progress, Sink, Stdio};

/// A process in a container. Its clones are one process.
#[derive(Debug, Clone)]
pub struct Process {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    target: Arc<Target>,
    exit: watch::Receiver<Option<ExitStatus>>,
    drained: watch::Receiver<bool>,
    closing: watch::Sender<bool>,
    outputs: Vec<AbortHandle>,
}

/// A process as requests name it.
#[derive(Debug)]
struct Target {
    guest: Arc<Guest>,
    container: String,
    exec: String,
}

impl Target {
    async fn resize(&self, rows: u16, columns: u16) -> Result<(), SandboxError> {
        let mut request = ResizePtyRequest::new();
        request.container_id.clone_from(&self.container);
        request.exec_id.clone_from(&self.exec);
        request.rows = u32::from(rows);
        request.columns = u32::from(columns);
        self.guest
            .call("resizing the terminal", async |agent, context| {
                agent.resize_pty(context, &request).await
            })
            .await?;
        Ok(())
    }
}

/// A process's streams, opened before it is asked for.
#[derive(Debug)]
pub(crate) struct Streams {
    tokens: cofferdam_protocol::Stdio,
    stdio: Stdio,
    stdin: Option<LinkStream>,
    stdout: Option<LinkStream>,
    stderr: Option<LinkStream>,
}

impl Streams {
    pub(crate) async fn open(
        guest: &Guest,
        stdio: Stdio,
        terminal: bool,
    ) -> Result<Self, SandboxError> {
        let mut streams = Self {
            tokens: cofferdam_protocol::Stdio::new(),
            stdio,
            stdin: None,
            stdout: None,
            stderr: None,
        };
        let (stdin, stdout, stderr) = match &streams.stdio {
            _ if terminal => (true, false, false),
            Stdio::Pipes {
                stdin,
                stdout,
                stderr,
            }
            | Stdio::Own {
                stdin,
                stdout,
                stderr,
            } => (stdin.is_some(), stdout.is_some(), stderr.is_some()),
            Stdio::Terminal { .. } => (true, true, false),
            Stdio::Log(_) => (false, true, true),
        };
        if stdin {
            (streams.tokens.stdin, streams.stdin) = guest.open_stdio().await?;
        }
        if stdout {
            (streams.tokens.stdout, streams.stdout) = guest.open_stdio().await?;
        }
        if stderr {
            (streams.tokens.stderr, streams.stderr) = guest.open_stdio().await?;
        }
        Ok(streams)
    }

    /// For the request that makes the process.
    pub(crate) fn tokens(&self) -> cofferdam_protocol::Stdio {
        self.tokens.clone()
    }

    /// Begins to move bytes.
    fn connect(
        self,
        terminal: bool,
        target: &Arc<Target>,
        closing: watch::Receiver<bool>,
    ) -> Pumps {
        let mut pumps = Pumps::default();
        let (stdin, stdout, stderr) = match self.stdio {
            Stdio::Pipes {
                stdin,
                stdout,
                stderr,
            } => (
                stdin.map(End::Shared),
                stdout.map(End::Shared).map(Sink::Host),
                stderr.map(End::Shared).map(Sink::Host),
            ),
            Stdio::Own {
                stdin,
                stdout,
                stderr,
            } => (
                stdin.map(End::Own),
                stdout.map(End::Own).map(Sink::Host),
                stderr.map(End::Own).map(Sink::Host),
            ),
            Stdio::Terminal { input, output } => (
                Some(End::Shared(input)),
                Some(Sink::Host(End::Shared(output))),
                None,
            ),
            Stdio::Log(log) => (
                None,
                Some(Sink::Log(log.stream("stdout"))),
                Some(Sink::Log(log.stream("stderr"))),
            ),
        };
        if terminal {
            let Some(stream) = self.stdin else {
                return pumps;
            };
            let (reader, writer) = stdio::split(stream);
            pumps.input(target, Some(writer), stdin, closing);
            pumps.stdout = pumps.output(Some(reader), stdout.unwrap_or(Sink::Discard));
        } else {
            pumps.input(target, self.stdin, stdin, closing);
            pumps.stdout = pumps.output(self.stdout, stdout.unwrap_or(Sink::Discard));
            pumps.stderr = pumps.output(self.stderr, stderr.unwrap_or(Sink::Discard));
        }
        pumps
    }
}

/// The tasks that move a process's bytes.
#[derive(Debug, Default)]
struct Pumps {
    input: Option<JoinHandle<()>>,
    stdout: Option<watch::Receiver<Progress>>,
    stderr: Option<watch::Receiver<Progress>>,
    outputs: Vec<AbortHandle>,
}

impl Pumps {
    fn input(
        &mut self,
        target: &Arc<Target>,
        stream: Option<impl tokio::io::AsyncWrite + Unpin + Send + 'static>,
        source: Option<End>,
        closing: watch::Receiver<bool>,
    ) {
        if let (Some(stream), Some(source)) = (stream, source) {
            let target = Arc::clone(target);
            let resize = move |rows, columns| {
                let target = Arc::clone(&target);
                async move {
                    if let Err(error) = target.resize(rows, columns).await {
                        tracing::debug!(%error, "terminal not resized");
                    }
                }
            };
            self.input = Some(tokio::spawn(stdio::input(source, stream, closing, resize)));
        }
    }

    fn output(
        &mut self,
        stream: Option<impl tokio::io::AsyncRead + Unpin + Send + 'static>,
        sink: Sink,
    ) -> Option<watch::Receiver<Progress>> {
        let (sender, progress) = watch::channel(Progress::default());
        let task = tokio::spawn(stdio::output(stream?, sink, sender));
        self.outputs.push(task.abort_handle());
        Some(progress)
    }

    /// Everything that was written before the end is handed over.
    async fn drained(&self, stdout: u64, stderr: u64) {
        for (progress, bytes) in [(&self.stdout, stdout), (&self.stderr, stderr)] {
            if let Some(progress) = progress {
                stdio::reached(progress.clone(), bytes).await;
            }
        }
    }

    /// Somebody on the host does not read.
    async fn stalled(&self) {
        let stalled = |progress: &Option<watch::Receiver<Progress>>| {
            let progress = progress.clone();
            async move {
                match progress {
                    Some(progress) => stdio::stalled(progress).await,
                    None => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = stalled(&self.stdout) => {}
            () = stalled(&self.stderr) => {}
        }
    }
}

impl Process {
    /// A process that the guest has made: moves its bytes and waits for its end from now on.
    pub(crate) fn watch(
        guest: &Arc<Guest>,
        container: &str,
        exec: &str,
        streams: Streams,
        terminal: bool,
    ) -> Self {
        let target = Arc::new(Target {
            guest: Arc::clone(guest),
            container: container.to_owned(),
            exec: exec.to_owned(),
        });
        let (closing, told) = watch::channel(false);
        let mut pumps = streams.connect(terminal, &target, told);
        let outputs = std::mem::take(&mut pumps.outputs);
        let (sender, exit) = watch::channel(None);
        let (drained_sender, drained) = watch::channel(false);
        let request = request(container, exec);
        let waiting = Arc::clone(guest);
        tokio::spawn(async move {
            let mut written = (0, 0);
            let status = match waiting.wait_process(&request).await {
                Ok(response) => {
                    written = (response.stdout_bytes, response.stderr_bytes);
                    ExitStatus {
                        code: u8::try_from(response.exit_status).unwrap_or(255),
                        signal: u8::try_from(response.signal)
                            .ok()
                            .filter(|&signal| signal != 0),
                        oom_killed: response.oom_killed,
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, container = request.container_id, exec = request.exec_id, "process lost");
                    ExitStatus::LOST
                }
            };
            if let Some(input) = &pumps.input {
                input.abort();
            }
            // A guest that dies now will send no more.
            let drained = waiting.unless_gone(pumps.drained(written.0, written.1));
            tokio::pin!(drained);
            let all = tokio::select! {
                biased;
                () = &mut drained => true,
                // Like a process on the host that left a full pipe behind: it has ended all the same.
                () = pumps.stalled() => false,
            };
            // Nobody may be waiting any more.
            sender.send_replace(Some(status));
            if !all {
                drained.await;
            }
            drained_sender.send_replace(true);
        });
        Self {
            inner: Arc::new(Inner {
                target,
                exit,
                drained,
                closing,
                outputs,
            }),
        }
    }

    /// Waits for its end and until what it had written is handed over, as long as somebody takes it.
    pub async fn wait(&self) -> ExitStatus {
        let mut exit = self.inner.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(status) => status.unwrap_or(ExitStatus::LOST),
            Err(_) => ExitStatus::LOST,
        }
    }

    /// Waits until what it had written before its end is handed over, however long its reader takes.
    pub async fn drained(&self) {
        let mut drained = self.inner.drained.clone();
        // An error means that its task is gone: nothing more will be handed over.
        let _gone = drained.wait_for(|&drained| drained).await;
    }

    /// Whether it has ended and all that it had written is handed over.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        *self.inner.drained.borrow()
    }

    /// How it ended; nothing while it runs.
    #[must_use]
    pub fn exit(&self) -> Option<ExitStatus> {
        *self.inner.exit.borrow()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// [`SandboxError::Agent`] when it has ended.
    pub async fn signal(&self, signal: u8, all: bool) -> Result<(), SandboxError> {
        let mut request = SignalProcessRequest::new();
        request
            .container_id
            .clone_from(&self.inner.target.container);
        request.exec_id.clone_from(&self.inner.target.exec);
        request.signal = u32::from(signal);
        request.all = all;
        self.inner
            .target
            .guest
            .call("signalling the process", async |agent, context| {
                agent.signal_process(context, &request).await
            })
            .await?;
        Ok(())
    }

    /// Tells its terminal a new size, in characters.
    ///
    /// # Errors
    /// [`SandboxError::Agent`] when it has no terminal or has ended.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<(), SandboxError> {
        self.inner.target.resize(rows, columns).await
    }

    /// Hands over no more of what it wrote, and closes where that went.
    pub fn abandon(&self) {
        for output in &self.inner.outputs {
            output.abort();
        }
    }

    /// Ends its stdin when it has been given all that is there already, whether or not the other side has closed it.
    pub fn close_stdin(&self) {
        self.inner.closing.send_replace(true);
    }

    /// Lets the guest forget an exec that has ended.
    pub(crate) async fn forget(&self) {
        let request = request(&self.inner.target.container, &self.inner.target.exec);
        let forgotten = self
            .inner
            .target
            .guest
            .call("forgetting the process", async |agent, context| {
                agent.delete_process(context, &request).await
            })
            .await;
        if let Err(error) = forgotten {
            tracing::debug!(%error, "exec not forgotten");
        }
    }
}

fn request(container: &str, exec: &str) -> ProcessRequest {
    let mut request = ProcessRequest::new();
    container.clone_into(&mut request.container_id);
    exec.clone_into(&mut request.exec_id);
    request
}
