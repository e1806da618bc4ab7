//! A stream to the guest's program, and what it is asked for.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use backend_api::LinkIo;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, bind, listen, socket,
};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

/// A guest that has not answered by then never will. The longest answers take four seconds of a test host, which are
/// minutes of this machine.
const LIMIT: Duration = Duration::from_secs(10);

/// A guest does not answer.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {LIMIT:?}")]
pub struct Silent;

/// Between two looks for a call.
const PAUSE: Duration = Duration::from_millis(20);

/// What is sent and read at once.
const PIECE: usize = 64 << 10;

/// What the guest says when something went as it should.
const DONE: &str = "done";

/// See `guest/measured.rs`.
pub struct Link(BufReader<LinkIo>);

impl Link {
    pub fn new(stream: LinkIo) -> Self {
        Self(BufReader::with_capacity(PIECE, stream))
    }

    /// Asks for something; what the guest answers.
    pub async fn ask(&mut self, request: &str) -> Result<String> {
        let exchange = async {
            self.request(request).await?;
            self.answer().await
        };
        limited(exchange)
            .await
            .with_context(|| format!("ask for {request:?}"))
    }

    /// Has a script run.
    pub async fn run(&mut self, script: &str) -> Result<()> {
        let answer = self.ask(&format!("sh {script}")).await?;
        if answer != DONE {
            bail!("{script}: {answer}");
        }
        Ok(())
    }

    /// So many times sends one byte there and back.
    pub async fn echo(&mut self, count: usize) -> Result<()> {
        limited(async {
            self.request(&format!("echo {count}")).await?;
            for _ in 0..count {
                self.0.write_u8(1).await?;
                self.0.read_u8().await?;
            }
            self.answer().await
        })
        .await
        .context("send bytes there and back")?;
        Ok(())
    }

    /// Sends so many bytes.
    pub async fn send(&mut self, bytes: usize) -> Result<()> {
        let piece = vec![0xa5; PIECE];
        limited(async {
            self.request(&format!("take {bytes}")).await?;
            for _ in 0..bytes / PIECE {
                self.0.write_all(&piece).await?;
            }
            self.answer().await
        })
        .await
        .context("send bytes")?;
        Ok(())
    }

    /// Has so many bytes sent.
    pub async fn receive(&mut self, bytes: usize) -> Result<()> {
        let mut piece = vec![0; PIECE];
        limited(async {
            self.request(&format!("give {bytes}")).await?;
            for _ in 0..bytes / PIECE {
                self.0.read_exact(&mut piece).await?;
            }
            self.answer().await
        })
        .await
        .context("receive bytes")?;
        Ok(())
    }

    async fn request(&mut self, request: &str) -> Result<()> {
        self.0.write_all(format!("{request}\n").as_bytes()).await?;
        Ok(())
    }

    async fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await? == 0 {
            bail!("the guest has hung up");
        }
        Ok(line.trim_end().to_owned())
    }
}

/// Has something end within the time that a guest has.
///
/// # Errors
/// [`Silent`] when it does not, and its own.
pub async fn limited<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    match timeout(LIMIT, work).await {
        Ok(done) => done,
        Err(_) => Err(Silent.into()),
    }
}

/// Where the host's kernel takes the guest's calls over vhost-vsock.
pub struct Listener(OwnedFd);

impl Listener {
    pub fn new(port: u32) -> Result<Self> {
        let socket = socket(
            AddressFamily::Vsock,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        )
        .context("make a vsock")?;
        let any = VsockAddr::new(libc::VMADDR_CID_ANY, port);
        bind(socket.as_raw_fd(), &any).context("bind a vsock")?;
        listen(&socket, Backlog::new(1)?).context("listen at a vsock")?;
        Ok(Self(socket))
    }

    /// Waits for one.
    pub async fn accept(&self) -> Result<LinkIo> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accepted = limited(async {
            loop {
                match accept_with(&self.0, flags) {
                    Err(Errno::AGAIN) => sleep(PAUSE).await,
                    done => return Ok(done?),
                }
            }
        });
        // Reading and writing are the same for every kind of stream.
        let stream = std::os::unix::net::UnixStream::from(accepted.await?);
        Ok(Box::new(UnixStream::from_std(stream)?))
    }
}
