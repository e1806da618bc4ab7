//! What a process writes, on its way to the host.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use cofferdam_protocol::link::LinkStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::unix::pipe;
use tokio::sync::Notify;

use super::BUFFER;

/// How far an output stream has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    read: AtomicU64,
    ended: AtomicBool,
    changed: Notify,
}

impl Progress {
    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    pub(super) fn add_read(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// Waits until `done`, asked after every change, is true.
    pub(super) async fn until(&self, mut done: impl FnMut() -> bool) {
        loop {
            let changed = self.changed.notified();
            if done() {
                return;
            }
            changed.await;
        }
    }
}

/// A pipe that a process writes to.
#[derive(Debug)]
pub(super) struct Output {
    /// The pump owns it: when the host takes no more, the pipe is closed and its writer gets
    /// SIGPIPE, as it would from any other reader.
    pipe: Weak<pipe::Receiver>,
    progress: Arc<Progress>,
}

impl Output {
    /// Starts to move what comes from `pipe` into `stream`.
    pub(super) fn new(pipe: pipe::Receiver, stream: LinkStream) -> Self {
        let pipe = Arc::new(pipe);
        let progress = Arc::new(Progress::default());
        let owned = (Arc::downgrade(&pipe), Arc::clone(&progress));
        tokio::spawn(async move {
            let (back, mut to_host) = split(stream);
            tokio::select! {
                () = forward(&pipe, &mut to_host, &progress) => {}
                () = until_closed(back) => {}
            }
            drop(pipe);
            progress.end();
            // A host that has gone needs no end of file.
            let _ = to_host.shutdown().await;
        });
        let (pipe, progress) = owned;
        Self { pipe, progress }
    }

    /// How many bytes have been written to the pipe until now.
    pub(super) fn total(&self) -> u64 {
        // Both are read in one thread, the one that also runs the pump: nothing comes between.
        let waiting = self
            .pipe
            .upgrade()
            .and_then(|pipe| rustix::io::ioctl_fionread(pipe.as_fd()).ok())
            .unwrap_or_default();
        self.progress.read() + waiting
    }
}

async fn forward(pipe: &pipe::Receiver, to: &mut WriteHalf<LinkStream>, progress: &Progress) {
    let mut buffer = vec![0; BUFFER];
    loop {
        if pipe.readable().await.is_err() {
            return;
        }
        let bytes = match pipe.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return,
        };
        progress.add_read(bytes);
        if to.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
    }
}

/// Waits until the host has closed a stream that it only reads from.
///
/// Without this a child in the background that holds the pipe and is silent would keep the
/// stream for ever.
pub(super) async fn until_closed(mut stream: ReadHalf<LinkStream>) {
    let mut ignored = [0; 64];
    while let Ok(1..) = stream.read(&mut ignored).await {}
}
