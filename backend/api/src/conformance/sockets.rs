//! Connections between programs of guest and host.
#![expect(clippy::missing_panics_doc, reason = "a failing test panics")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use super::cases::{assert_unsupported, echo, refused, said, within};
use super::{Fixture, PATIENCE, guest};
use crate::{Dial, Sockets};

/// Where the guest listens, and where it expects a program of the host.
const INSIDE: u32 = 52;
const OUTSIDE: u32 = 53;

/// A program of the host that the guest may connect to, at one port.
#[derive(Debug)]
struct Program(Mutex<mpsc::Sender<UnixStream>>);

impl Dial for Program {
    fn dial(&self, port: u32) -> io::Result<OwnedFd> {
        if port != OUTSIDE {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (near, far) = UnixStream::pair()?;
        far.set_nonblocking(true)?;
        let sender = self.0.lock().map_err(|_| io::ErrorKind::Other)?;
        sender.send(near).map_err(|_| io::ErrorKind::Other)?;
        Ok(far.into())
    }
}

/// Programs of the host reach those of the guest by their ports, and the other way round; who is not there is refused.
/// Backends that cannot do that refuse such a machine.
pub async fn programs_of_guest_and_host_find_each_other(fixture: &Fixture) {
    // Of this process only, and gone with it: no file.
    let name = format!("cofferdam-conformance-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(name).expect("an address");
    let listener = UnixListener::bind_addr(&address).expect("binds");
    let (sender, dialled) = mpsc::channel();
    let mut config = fixture.config(&[guest::SOCKETS]);
    config.sockets = Some(Sockets {
        listener: listener.into(),
        dial: Arc::new(Program(Mutex::new(sender))),
    });
    if !fixture.backend.capabilities().sockets {
        return assert_unsupported(refused(fixture, config).await, "vsock");
    }
    let (mut vm, mut link) = fixture.boot(config).await;
    let from_guest = blocking(move || {
        let stream = dialled.recv_timeout(PATIENCE).expect("the guest connects");
        echoes(&stream);
    });
    within("the guest's program", &*vm, from_guest).await;
    said(&*vm, guest::REFUSED).await;
    let other = address.clone();
    let to_guest = blocking(move || echoes(&knock(&address, INSIDE)));
    within("the guest's port", &*vm, to_guest).await;
    let nobody = blocking(move || {
        let mut stream = UnixStream::connect_addr(&other).expect("connects");
        stream.write_all(b"CONNECT 4711\n").expect("writes");
        let mut words = Vec::new();
        stream.read_to_end(&mut words).expect("reads");
        words
    });
    assert!(within("the end", &*vm, nobody).await.is_empty());
    // The link is none of their business.
    echo(&*vm, &mut link).await;
    vm.stop().await.expect("stops");
}

/// Asks for a port of the guest until somebody listens there.
fn knock(address: &SocketAddr, port: u32) -> UnixStream {
    loop {
        let mut stream = UnixStream::connect_addr(address).expect("connects");
        writeln!(stream, "CONNECT {port}").expect("writes");
        let mut line = String::new();
        let mut reader = BufReader::with_capacity(1, &stream);
        reader.read_line(&mut line).expect("reads");
        if line.starts_with("OK ") {
            return stream;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Bytes go both ways, whole and in order, and so does the end.
fn echoes(stream: &UnixStream) {
    let sent: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut received = vec![0; sent.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = stream;
            stream.write_all(&sent).expect("writes");
        });
        let mut stream = stream;
        stream.read_exact(&mut received).expect("reads");
    });
    assert!(sent == received, "bytes were changed");
    stream.shutdown(std::net::Shutdown::Write).expect("ends");
    let mut stream = stream;
    assert_eq!(stream.read(&mut [0]).expect("reads"), 0, "the end");
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}
