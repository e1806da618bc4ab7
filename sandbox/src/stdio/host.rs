//! Descriptors that callers hand over, read and written without blocking the driver and without changing them.
//!
//! `O_NONBLOCK` belongs to the open file, which the caller still uses. So pipes and terminals are opened anew through
//! `/proc/self/fd`, sockets are asked per call, and what is always ready (files, `/dev/null`) is used as it is.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that bytes come from or go to.
#[derive(Debug)]
pub enum End {
    /// Somebody else may use the open file, too.
    Shared(OwnedFd),
    /// Nobody else does.
    Own(OwnedFd),
}

impl End {
    /// To read from.
    ///
    /// # Errors
    /// When it cannot be made ready.
    pub fn reader(self) -> io::Result<HostIo> {
        match self {
            Self::Shared(descriptor) => HostIo::reader(descriptor),
            Self::Own(descriptor) => HostIo::own(descriptor, Interest::READABLE),
        }
    }

    /// To write to.
    ///
    /// # Errors
    /// When it cannot be made ready; `ENXIO` when nobody can read it any more.
    pub fn writer(self) -> io::Result<HostIo> {
        match self {
            Self::Shared(descriptor) => HostIo::writer(descriptor),
            Self::Own(descriptor) => HostIo::own(descriptor, Interest::WRITABLE),
        }
    }
}

/// One direction of one descriptor.
#[derive(Debug)]
pub enum HostIo {
    /// A pipe or terminal, our own open file.
    Own(AsyncFd<OwnedFd>),
    /// A socket.
    Socket(AsyncFd<OwnedFd>),
    /// Never blocks.
    Ready(OwnedFd),
}

impl HostIo {
    /// To read from.
    ///
    /// # Errors
    /// When it cannot be opened anew.
    pub fn reader(descriptor: OwnedFd) -> io::Result<Self> {
        Self::open(descriptor, OFlags::RDONLY, Interest::READABLE)
    }

    /// To write to.
    ///
    /// # Errors
    /// When it cannot be opened anew; `ENXIO` when nobody can read it any more.
    pub fn writer(descriptor: OwnedFd) -> io::Result<Self> {
        Self::open(descriptor, OFlags::WRONLY, Interest::WRITABLE)
    }

    fn own(descriptor: OwnedFd, interest: Interest) -> io::Result<Self> {
        let kind = FileType::from_raw_mode(fstat(&descriptor)?.st_mode);
        match kind {
            FileType::Fifo | FileType::Socket => {
                rustix::io::ioctl_fionbio(&descriptor, true)?;
                Ok(Self::Own(register(descriptor, interest)?))
            }
            _ => Ok(Self::Ready(descriptor)),
        }
    }

    fn open(descriptor: OwnedFd, direction: OFlags, interest: Interest) -> io::Result<Self> {
        let kind = FileType::from_raw_mode(fstat(&descriptor)?.st_mode);
        match kind {
            FileType::Socket => Ok(Self::Socket(register(descriptor, interest)?)),
            FileType::Fifo | FileType::CharacterDevice => {
                let path = format!(
                    "/proc/self/fd/{}",
                    std::os::fd::AsRawFd::as_raw_fd(&descriptor)
                );
                let flags = direction | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                let own = open(path, flags, Mode::empty())?;
                // epoll refuses /dev/null and its like: they are always ready.
                Ok(match register(own, interest) {
                    Ok(own) => Self::Own(own),
                    Err(_) => Self::Ready(descriptor),
                })
            }
            _ => Ok(Self::Ready(descriptor)),
        }
    }

    /// Reads what is there, waiting until something is; 0 at the end of file. A terminal that was hung up has ended.
    ///
    /// # Errors
    /// As read(2).
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self {
            Self::Own(fd) => {
                fd.async_io(Interest::READABLE, |fd| {
                    Ok(rustix::io::read(fd, &mut *buffer)?)
                })
                .await
            }
            Self::Socket(fd) => {
                fd.async_io(Interest::READABLE, |fd| {
                    let (count, _) = recv(fd, &mut *buffer, RecvFlags::DONTWAIT)?;
                    Ok(count)
                })
                .await
            }
            Self::Ready(fd) => rustix::io::read(fd, buffer).map_err(io::Error::from),
        };
        match read {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                Ok(0)
            }
            other => other,
        }
    }

    /// Reads what is there now; 0 when nothing is.
    pub fn read_now(&self, buffer: &mut [u8]) -> usize {
        let read = match self {
            Self::Own(fd) => rustix::io::read(fd.get_ref(), buffer),
            Self::Socket(fd) => {
                recv(fd.get_ref(), buffer, RecvFlags::DONTWAIT).map(|(count, _)| count)
            }
            Self::Ready(fd) => rustix::io::read(fd, buffer),
        };
        // What cannot be read is not there.
        read.unwrap_or(0)
    }

    /// Rows and columns, if it is a terminal that has a size.
    #[must_use]
    pub fn terminal_size(&self) -> Option<(u16, u16)> {
        let Self::Own(fd) = self else { return None };
        let size = rustix::termios::tcgetwinsize(fd.get_ref()).ok()?;
        (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// As write(2).
    pub async fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let count = match self {
                Self::Own(fd) => {
                    fd.async_io(Interest::WRITABLE, |fd| Ok(rustix::io::write(fd, data)?))
                        .await?
                }
                Self::Socket(fd) => {
                    fd.async_io(Interest::WRITABLE, |fd| {
                        Ok(send(fd, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
                    })
                    .await?
                }
                Self::Ready(fd) => match rustix::io::write(fd.as_fd(), data) {
                    Err(rustix::io::Errno::INTR) => 0,
                    other => other?,
                },
            };
            data = &data[count..];
        }
        Ok(())
    }
}

#[expect(
    deprecated,
    reason = "its hole is an `AsRawFd` that lies; `OwnedFd` does not"
)]
fn register(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, interest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[tokio::test(flavor = "current_thread")]
    async fn pipes_keep_their_own_flags() {
        let (reader, writer) = io::pipe().unwrap();
        let copy: OwnedFd = reader.try_clone().unwrap().into();
        let io = HostIo::reader(copy).unwrap();
        (&writer).write_all(b"abc").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(io.read(&mut buffer).await.unwrap(), 3);
        let flags = rustix::fs::fcntl_getfl(&reader).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK));
        drop(writer);
        assert_eq!(io.read(&mut buffer).await.unwrap(), 0);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_full_pipe_waits_for_its_reader() {
        let (mut reader, writer) = io::pipe().unwrap();
        let io = HostIo::writer(writer.into()).unwrap();
        let data = vec![7; 1 << 20];
        let thread = std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            all.len()
        });
        io.write_all(&data).await.unwrap();
        drop(io);
        assert_eq!(thread.join().unwrap(), data.len());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_own_fifo_outlives_its_reader_and_waits_for_its_first_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let flags = OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = open(&path, OFlags::RDONLY | flags, Mode::empty()).unwrap();
        let source = End::Own(source).reader().unwrap();
        let mut buffer = [0; 8];
        let early = tokio::time::timeout(
            std::time::Duration::from_millis(50),
            source.read(&mut buffer),
        );
        assert!(early.await.is_err(), "nobody has written or closed it");
        drop(open(&path, OFlags::WRONLY | flags, Mode::empty()).unwrap());
        assert_eq!(source.read(&mut buffer).await.unwrap(), 0);
        drop(source);

        let sink = open(&path, OFlags::RDWR | flags, Mode::empty()).unwrap();
        let sink = End::Own(sink).writer().unwrap();
        sink.write_all(b"kept").await.unwrap();
        let reader = open(&path, OFlags::RDONLY | flags, Mode::empty()).unwrap();
        drop(reader);
        sink.write_all(b" all").await.unwrap();
        let reader = open(&path, OFlags::RDONLY | flags, Mode::empty()).unwrap();
        assert_eq!(rustix::io::read(&reader, &mut buffer).unwrap(), 8);
        assert_eq!(&buffer, b"kept all");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn sockets_files_and_null_work() {
        let (one, mut other) = std::os::unix::net::UnixStream::pair().unwrap();
        HostIo::writer(one.into())
            .unwrap()
            .write_all(b"x")
            .await
            .unwrap();
        assert_eq!(other.read(&mut [0; 4]).unwrap(), 1);
        let null = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .unwrap();
        let io = HostIo::reader(null.into()).unwrap();
        assert!(matches!(io, HostIo::Ready(_)));
        assert_eq!(io.read(&mut [0; 4]).await.unwrap(), 0);
        let mut file = tempfile::tempfile().unwrap();
        HostIo::writer(file.try_clone().unwrap().into())
            .unwrap()
            .write_all(b"text")
            .await
            .unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
    }
}
