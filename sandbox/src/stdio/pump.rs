//! Moving bytes between a process's streams on the link and the host's descriptors.

use std::time::Duration;

use cofferdam_protocol::link::LinkStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use crate::stdio::{End, HostIo, LogStream};

/// Moved at once, at most. Small: an idle sandbox keeps a buffer per stream.
const CHUNK: usize = 32 << 10;

/// Where a process's output goes.
#[derive(Debug)]
pub enum Sink {
    /// A descriptor.
    Host(End),
    /// A log.
    Log(LogStream),
    /// Nowhere.
    Discard,
}

/// How far one output stream has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that have been handed over.
    pub bytes: u64,
    /// Nothing more will be.
    pub finished: bool,
    /// The host's side is being written to: when that lasts, its reader does not read.
    pub writing: bool,
}

/// A reader that takes nothing for so long is not waited for when its process has ended.
const READER_PATIENCE: Duration = Duration::from_millis(500);

/// Moves what the caller gives until it ends, then half-closes the stream; once `closing` is true, only what is there
/// already. Where the source is a terminal, `resize` is
/// told its rows and columns before what was typed at a new size is moved: on one host the two cannot overtake each
/// other either.
pub async fn input<R: Future<Output = ()>>(
    source: End,
    mut stream: impl tokio::io::AsyncWrite + Unpin,
    mut closing: watch::Receiver<bool>,
    mut resize: impl FnMut(u16, u16) -> R,
) {
    let mut known = None;
    // A source that cannot be opened has ended: the process reads end of file, as from a closed descriptor.
    if let Ok(source) = source.reader() {
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = tokio::select! {
                biased;
                read = source.read(&mut buffer) => read.unwrap_or(0),
                () = told(&mut closing) => source.read_now(&mut buffer),
            };
            if count == 0 {
                break;
            }
            let size = source.terminal_size();
            if let Some((rows, columns)) = size.filter(|_| size != known) {
                known = size;
                resize(rows, columns).await;
            }
            if stream.write_all(&buffer[..count]).await.is_err() {
                return;
            }
            if stream.flush().await.is_err() {
                return;
            }
        }
    }
    // Fails only when the link is gone, and the process with it.
    let _gone = stream.shutdown().await;
}

/// Waits until somebody says so; never returns when nobody is left to say it.
async fn told(closing: &mut watch::Receiver<bool>) {
    if closing.wait_for(|&closing| closing).await.is_err() {
        std::future::pending().await
    }
}

/// Moves what the process writes until its stream ends. When the host's side cannot take more (its reader is gone) the
/// stream is closed, and the process gets EPIPE as it would on the host.
pub async fn output(
    mut stream: impl tokio::io::AsyncRead + Unpin,
    sink: Sink,
    progress: watch::Sender<Progress>,
) {
    let mut sink = match sink {
        Sink::Host(end) => match end.writer() {
            Ok(io) => Open::Host(io),
            Err(error) => {
                tracing::debug!(%error, "output has no reader");
                progress.send_modify(|progress| progress.finished = true);
                return;
            }
        },
        Sink::Log(log) => Open::Log(log),
        Sink::Discard => Open::Discard,
    };
    let mut buffer = vec![0; CHUNK];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let data = &buffer[..count];
        progress.send_modify(|progress| progress.writing = true);
        let taken = match &mut sink {
            Open::Host(io) => io.write_all(data).await,
            Open::Log(log) => log.write(data),
            Open::Discard => Ok(()),
        };
        if let Err(error) = taken {
            tracing::debug!(%error, "output is no longer taken");
            break;
        }
        progress.send_modify(|progress| {
            progress.bytes += count as u64;
            progress.writing = false;
        });
    }
    drop(stream);
    drop(sink);
    progress.send_modify(|progress| {
        progress.finished = true;
        progress.writing = false;
    });
}

enum Open {
    Host(HostIo),
    Log(LogStream),
    Discard,
}

/// Waits until `bytes` have been handed over, or no more will be.
pub async fn reached(mut progress: watch::Receiver<Progress>, bytes: u64) {
    // An error means that the pump is gone: nothing more will be handed over.
    let _gone = progress
        .wait_for(|progress| progress.finished || progress.bytes >= bytes)
        .await;
}

/// Waits until the reader on the host has taken nothing for a while although there is something; never returns when
/// all is handed over.
pub async fn stalled(mut progress: watch::Receiver<Progress>) {
    loop {
        let Ok(before) = progress
            .wait_for(|progress| progress.writing)
            .await
            .map(|progress| *progress)
        else {
            return std::future::pending().await;
        };
        let moved = progress.wait_for(|progress| *progress != before);
        if tokio::time::timeout(READER_PATIENCE, moved).await.is_err() {
            return;
        }
    }
}

/// Splits a terminal's stream, which runs both ways.
pub fn split(
    stream: LinkStream,
) -> (
    tokio::io::ReadHalf<LinkStream>,
    tokio::io::WriteHalf<LinkStream>,
) {
    tokio::io::split(stream)
}
