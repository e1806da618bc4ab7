//! The link over an in-memory stream, with honest and with hostile peers.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

type Driver = JoinHandle<Result<(), LinkError>>;

/// Both ends, driven, over a stream that holds `size` bytes.
fn pair(size: usize) -> (Link, Incoming, Driver, Driver) {
    let (host_io, guest_io) = duplex(size);
    let (link, host) = Link::host(host_io);
    let (incoming, guest) = guest(guest_io);
    (link, incoming, tokio::spawn(host), tokio::spawn(guest))
}

fn stdio(token: u64) -> StreamKind {
    StreamKind::Stdio { token }
}

#[test]
fn preambles_are_what_the_page_says() {
    let head = Preamble(stdio(0x0102)).encode();
    assert_eq!(head, [b'C', b'F', 1, 2, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
    let connect = |port| StreamKind::Connect { port };
    for kind in [
        StreamKind::Control,
        stdio(1),
        stdio(u64::MAX),
        connect(1),
        connect(u16::MAX),
        StreamKind::Resolver,
    ] {
        let decoded = Preamble::decode(Preamble(kind).encode()).expect("ours");
        assert_eq!(decoded.0, kind);
    }
    let good = Preamble(stdio(7)).encode();
    for place in 0..8 {
        let mut bad = good;
        bad[place] ^= 0x80;
        assert!(Preamble::decode(bad).is_err(), "byte {place}");
    }
    assert!(Preamble::decode([0; 16]).is_err());
    assert!(Preamble::decode(Preamble(stdio(0)).encode()).is_err());
    assert!(Preamble::decode(Preamble(connect(0)).encode()).is_err());
    let mut large = Preamble(connect(1)).encode();
    large[10] = 1;
    assert!(Preamble::decode(large).is_err());
}

#[tokio::test]
async fn many_streams_arrive_and_stay_apart() {
    let (link, mut incoming, _host, _guest) = pair(4096);
    let mut theirs = Vec::new();
    for token in 1..=MAX_STREAMS as u64 {
        theirs.push(link.open_stdio(token).await.expect("open"));
    }
    assert!(matches!(
        link.open_control().await,
        Err(LinkError::TooManyStreams)
    ));
    let echo = tokio::spawn(async move {
        for _ in 0..MAX_STREAMS {
            let (kind, mut stream) = incoming.next().await.expect("a stream");
            let StreamKind::Stdio { token } = kind else {
                panic!("a control stream");
            };
            stream.write_all(&token.to_be_bytes()).await.expect("write");
            stream.shutdown().await.expect("shutdown");
        }
        incoming
    });
    for (token, stream) in (1u64..).zip(&mut theirs) {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("read");
        assert_eq!(answer, token.to_be_bytes());
    }
    let mut incoming = echo.await.expect("echo");
    // Places are free again when streams are dropped, for as long as one likes.
    drop(theirs);
    for token in 1..2000 {
        let stream = link.open_stdio(token).await.expect("open again");
        let (kind, _) = incoming.next().await.expect("a stream");
        assert_eq!(kind, stdio(token));
        drop(stream);
    }
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    let (link, mut incoming, _host, _guest) = pair(64);
    let mut host = link.open_stdio(1).await.expect("open");
    let (_, mut guest) = incoming.next().await.expect("a stream");

    host.write_all(b"question").await.expect("write");
    host.shutdown().await.expect("shutdown");
    let mut text = String::new();
    guest.read_to_string(&mut text).await.expect("read");
    assert_eq!(text, "question");
    guest
        .write_all(b"answer")
        .await
        .expect("write after the other end");
    guest.shutdown().await.expect("shutdown");
    text.clear();
    host.read_to_string(&mut text).await.expect("read");
    assert_eq!(text, "answer");

    // A stream that is dropped ends both.
    let mut host = link.open_stdio(2).await.expect("open");
    let (_, guest) = incoming.next().await.expect("a stream");
    drop(guest);
    text.clear();
    host.read_to_string(&mut text).await.expect("an end");
    assert_eq!(text, "");
    let refused = timeout(PATIENCE, async {
        loop {
            if let Err(error) = host.write_all(b"x").await {
                break error;
            }
            tokio::task::yield_now().await;
        }
    });
    refused.await.expect("writing is refused");
}

/// What `stream` gets when it reads `size` bytes in pieces, resting after each.
async fn sum(mut stream: LinkStream, size: usize, rest: Duration) -> u64 {
    let (mut sum, mut left) = (0u64, size);
    let mut piece = vec![0; 64 * 1024];
    while left > 0 {
        let read = stream.read(&mut piece).await.expect("read");
        assert!(read > 0, "{left} bytes are missing");
        sum += piece[..read]
            .iter()
            .map(|byte| u64::from(*byte))
            .sum::<u64>();
        left -= read;
        tokio::time::sleep(rest).await;
    }
    sum
}

async fn send(mut stream: LinkStream, size: usize) -> u64 {
    let piece: Vec<u8> = (0..=255).cycle().take(96 * 1024).collect();
    let (mut sum, mut left) = (0u64, size);
    while left > 0 {
        let part = &piece[..piece.len().min(left)];
        stream.write_all(part).await.expect("write");
        sum += part.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        left -= part.len();
    }
    stream.shutdown().await.expect("shutdown");
    // Dropping it now would be fine too: what was written is on its way.
    sum
}

#[tokio::test]
async fn a_slow_reader_stops_only_its_own_writer() {
    const BULK: usize = 64 * 1024 * 1024;
    const TRICKLE: usize = 2 * 1024 * 1024;
    let (link, mut incoming, _host, _guest) = pair(16 * 1024);
    let mut tasks = Vec::new();
    // Both directions at once, fast and slow beside each other.
    for (token, size, rest) in [(1, BULK, 0), (2, TRICKLE, 5)] {
        let rest = Duration::from_millis(rest);
        let host = link.open_stdio(token).await.expect("open");
        let (_, guest) = incoming.next().await.expect("a stream");
        tasks.push((
            tokio::spawn(send(host, size)),
            tokio::spawn(sum(guest, size, rest)),
        ));
        let host = link.open_stdio(token + 10).await.expect("open");
        let (_, guest) = incoming.next().await.expect("a stream");
        tasks.push((
            tokio::spawn(send(guest, size)),
            tokio::spawn(sum(host, size, rest)),
        ));
    }
    for (sent, received) in tasks {
        let sent = timeout(PATIENCE, sent)
            .await
            .expect("no deadlock")
            .expect("sent");
        let received = timeout(PATIENCE, received)
            .await
            .expect("no deadlock")
            .expect("received");
        assert_eq!(sent, received);
    }
}

#[tokio::test]
async fn a_writer_waits_for_a_reader_that_does_not_read() {
    let (link, mut incoming, _host, _guest) = pair(16 * 1024);
    let mut host = link.open_stdio(1).await.expect("open");
    let (_, guest) = incoming.next().await.expect("a stream");
    let mut sent = 0;
    while let Ok(written) = timeout(Duration::from_millis(200), host.write(&[0; 8192])).await {
        sent += written.expect("write");
        assert!(sent <= 4 * STREAM_WINDOW, "no back-pressure");
    }
    assert!(sent >= STREAM_WINDOW / 2);
    drop(guest);
}

#[tokio::test]
async fn a_silent_stream_delays_no_other() {
    let (host_io, guest_io) = duplex(64 * 1024);
    let (mut incoming, driver) = guest(guest_io);
    tokio::spawn(driver);
    let mut mux = raw_client(host_io);
    let mut silent = mux.open().await;
    silent
        .write_all(&Preamble(stdio(1)).encode()[..9])
        .await
        .expect("half a preamble");
    let mut prompt = mux.open().await;
    prompt
        .write_all(&Preamble(stdio(2)).encode())
        .await
        .expect("a preamble");
    let (kind, _stream) = incoming.next().await.expect("a stream");
    assert_eq!(kind, stdio(2));
    silent
        .write_all(&Preamble(stdio(1)).encode()[9..])
        .await
        .expect("the rest");
    let (kind, _stream) = incoming.next().await.expect("a stream");
    assert_eq!(kind, stdio(1));
    // One that ends before it has said what it is, is nobody's.
    drop(mux.open().await);
    let mut last = mux.open().await;
    last.write_all(&Preamble(StreamKind::Control).encode())
        .await
        .expect("a preamble");
    let (kind, _stream) = incoming.next().await.expect("a stream");
    assert_eq!(kind, StreamKind::Control);
}

#[tokio::test]
async fn a_bad_preamble_ends_the_link() {
    let (host_io, guest_io) = duplex(64 * 1024);
    let (mut incoming, driver) = guest(guest_io);
    let driver = tokio::spawn(driver);
    let mut stream = raw_client(host_io).open().await;
    stream
        .write_all(b"GET / HTTP/1.1\r\n")
        .await
        .expect("write");
    let ended = timeout(PATIENCE, driver)
        .await
        .expect("in time")
        .expect("no panic");
    assert!(
        matches!(ended, Err(LinkError::BadPreamble { .. })),
        "{ended:?}"
    );
    assert!(incoming.next().await.is_none());
}

#[tokio::test]
async fn a_guest_may_not_open_streams() {
    let (host_io, guest_io) = duplex(64 * 1024);
    let (link, driver) = Link::host(host_io);
    let driver = tokio::spawn(driver);
    let mut guest = Raw::new(guest_io, yamux::Mode::Server);
    guest.open().await.write_all(b"hello").await.expect("write");
    let ended = timeout(PATIENCE, driver)
        .await
        .expect("in time")
        .expect("no panic");
    assert!(
        matches!(ended, Err(LinkError::UnexpectedStream)),
        "{ended:?}"
    );
    assert!(matches!(link.open_control().await, Err(LinkError::Closed)));
}

#[tokio::test]
async fn too_many_streams_end_the_link() {
    let (host_io, guest_io) = duplex(64 * 1024);
    let (mut incoming, driver) = guest(guest_io);
    let driver = tokio::spawn(driver);
    let mut host = raw_client(host_io);
    let flood = tokio::spawn(async move {
        let mut streams = Vec::new();
        loop {
            let mut stream = host.open().await;
            if stream.write_all(&Preamble(stdio(1)).encode()).await.is_ok() {
                streams.push(stream);
            }
        }
    });
    // A guest that keeps them all, and answers, without which yamux itself opens no more.
    let mut kept = Vec::new();
    let took_all = timeout(PATIENCE, async {
        while let Some((_, mut stream)) = incoming.next().await {
            // The link may end at any of them.
            let _ = stream.write_all(b"!").await;
            kept.push(stream);
        }
    });
    took_all.await.expect("the link ends");
    assert_eq!(kept.len(), connection::TABLE);
    let ended = timeout(PATIENCE, driver).await.expect("the driver ends");
    drop(ended.expect("no panic"));
    flood.abort();
}

#[tokio::test]
async fn garbage_ends_the_link() {
    for garbage in [
        &[0xff; 64][..],
        b"\0\0\0\0",
        &[0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ] {
        let (mut host_io, guest_io) = duplex(64 * 1024);
        let (mut incoming, driver) = guest(guest_io);
        let driver = tokio::spawn(driver);
        host_io.write_all(garbage).await.expect("write");
        drop(host_io);
        let ended = timeout(PATIENCE, driver)
            .await
            .expect("in time")
            .expect("no panic");
        drop(ended);
        assert!(incoming.next().await.is_none());
    }
}

/// A peer that speaks yamux but not our protocol.
struct Raw {
    open: tokio::sync::mpsc::Sender<tokio::sync::oneshot::Sender<yamux::Stream>>,
}

fn raw_client(io: DuplexStream) -> Raw {
    Raw::new(io, yamux::Mode::Client)
}

impl Raw {
    fn new(io: DuplexStream, mode: yamux::Mode) -> Self {
        use tokio_util::compat::TokioAsyncReadCompatExt;
        let mut config = yamux::Config::default();
        config
            .set_max_connection_receive_window(None)
            .set_max_num_streams(100_000);
        let mut mux = yamux::Connection::new(io.compat(), config, mode);
        let (open, mut wanted) =
            tokio::sync::mpsc::channel::<tokio::sync::oneshot::Sender<yamux::Stream>>(1);
        tokio::spawn(async move {
            let mut waiting = None;
            std::future::poll_fn(|cx| {
                loop {
                    if mux.poll_next_inbound(cx).is_ready() {
                        return std::task::Poll::Ready(());
                    }
                    if waiting.is_none() {
                        match wanted.poll_recv(cx) {
                            std::task::Poll::Ready(Some(next)) => waiting = Some(next),
                            _ => return std::task::Poll::Pending,
                        }
                    }
                    match mux.poll_new_outbound(cx) {
                        std::task::Poll::Ready(Ok(stream)) => {
                            if let Some(waiter) = waiting.take() {
                                let _ = waiter.send(stream);
                            }
                        }
                        _ => return std::task::Poll::Pending,
                    }
                }
            })
            .await;
        });
        Self { open }
    }

    async fn open(&mut self) -> tokio_util::compat::Compat<yamux::Stream> {
        use tokio_util::compat::FuturesAsyncReadCompatExt;
        let (reply, stream) = tokio::sync::oneshot::channel();
        if self.open.send(reply).await.is_err() {
            std::future::pending::<()>().await;
        }
        match stream.await {
            Ok(stream) => stream.compat(),
            Err(_) => std::future::pending().await,
        }
    }
}
