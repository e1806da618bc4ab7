//! Docker's server for the names of containers: it listens on 127.0.0.11, inside the network namespace only.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpSocket;

use crate::error::NetworkError;
use crate::namespace::Namespace;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Rules of the engine's lead from here to the port that it has chosen.
const PORT: u16 = 53;

/// Longer than the engine tries other servers for a name that is none of its own.
const DEADLINE: Duration = Duration::from_secs(20);

/// The server in a namespace. Nothing else can be reached through this.
#[derive(Debug, Clone)]
pub struct Resolver {
    namespace: Arc<Namespace>,
}

impl Resolver {
    pub(crate) fn new(namespace: Arc<Namespace>) -> Self {
        Self { namespace }
    }

    /// Whether it is there. The engine starts it before it makes the interfaces for which it is wanted.
    pub(crate) fn is_there(&self) -> Result<bool, NetworkError> {
        self.namespace.enter(is_here)
    }

    /// Asks by UDP; the answer, which may be cut short.
    ///
    /// # Errors
    /// There is none in time, or the operating system refuses.
    pub async fn ask_by_datagram(&self, question: &[u8]) -> io::Result<Vec<u8>> {
        // A socket for each: the engine's rules are looked at once for each pair of ends.
        let socket = self.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
        socket.set_nonblocking(true)?;
        let socket = tokio::net::UdpSocket::from_std(socket)?;
        socket.connect((ADDRESS, PORT)).await?;
        socket.send(question).await?;
        let answer = async {
            loop {
                let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
                // Nobody listens.
                if ready.is_error() {
                    let refused = io::ErrorKind::ConnectionRefused.into();
                    return Err(socket.take_error()?.unwrap_or(refused));
                }
                // Not before there is something: many may wait.
                let mut buffer = vec![0; usize::from(u16::MAX)];
                match socket.try_recv(&mut buffer) {
                    Ok(length) => return Ok(buffer[..length].to_vec()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        };
        tokio::time::timeout(DEADLINE, answer).await?
    }

    /// Asks by TCP.
    ///
    /// # Errors
    /// There is no answer in time, or the operating system refuses.
    pub async fn ask_by_connection(&self, question: &[u8]) -> io::Result<Vec<u8>> {
        let socket = self.inside(TcpSocket::new_v4)?;
        let length = u16::try_from(question.len()).map_err(io::Error::other)?;
        let answer = async {
            let mut connection = socket
                .connect(SocketAddrV4::new(ADDRESS, PORT).into())
                .await?;
            connection.write_u16(length).await?;
            connection.write_all(question).await?;
            let mut answer = vec![0; usize::from(connection.read_u16().await?)];
            connection.read_exact(&mut answer).await?;
            Ok(answer)
        };
        tokio::time::timeout(DEADLINE, answer).await?
    }

    fn inside<T: Send>(&self, open: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        self.namespace
            .enter(|| Ok(open()))
            .map_err(io::Error::other)?
    }
}

/// Whether it is in the namespace of the calling thread.
pub(crate) fn is_here() -> Result<bool, NetworkError> {
    let failed = "look for a server for names (/proc/thread-self/net/udp)";
    fs::read_to_string("/proc/thread-self/net/udp")
        .map(|table| has_server(&table))
        .map_err(NetworkError::kernel(failed))
}

/// Whether a table of UDP sockets, as in /proc/net/udp, has one on the server's address.
fn has_server(table: &str) -> bool {
    table.lines().skip(1).any(|line| {
        let local = line.split_whitespace().nth(1);
        let address = local.and_then(|local| local.split_once(':'));
        let address = address.and_then(|(address, _)| u32::from_str_radix(address, 16).ok());
        address.is_some_and(|address| Ipv4Addr::from(address.to_ne_bytes()) == ADDRESS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_told_from_other_sockets() {
        let head =
            "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n";
        let line = |address: Ipv4Addr| {
            let number = u32::from_ne_bytes(address.octets());
            format!("  711: {number:08X}:B5A3 00000000:0000 07 00000000:00000000 00:00000000 0\n")
        };
        let other = line(Ipv4Addr::LOCALHOST);
        assert!(!has_server(head));
        assert!(!has_server(&format!("{head}{other}nonsense\n")));
        assert!(has_server(&format!("{head}{other}{}", line(ADDRESS))));
    }

    /// What it asks is in the namespace, and nowhere else.
    #[tokio::test(flavor = "current_thread")]
    async fn the_namespaces_server_is_asked() {
        let Some(namespace) = crate::namespace::tests::with_loopback() else {
            return;
        };
        let namespace = Arc::new(namespace);
        let resolver = Resolver::new(Arc::clone(&namespace));
        assert!(!resolver.is_there().expect("a table"));
        let refused = resolver.ask_by_datagram(b"anybody?").await;
        let refused = refused.expect_err("nobody is there");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let (datagrams, connections) = namespace
            .enter(|| {
                let datagrams = UdpSocket::bind((ADDRESS, PORT)).expect("a socket");
                let connections = std::net::TcpListener::bind((ADDRESS, PORT)).expect("a socket");
                Ok((datagrams, connections))
            })
            .expect("a namespace");
        assert!(resolver.is_there().expect("a table"));
        let server = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let mut question = [0; 100];
            let (length, from) = datagrams.recv_from(&mut question).expect("a question");
            let answer = [&question[..length], b"!"].concat();
            datagrams.send_to(&answer, from).expect("an answer");
            let (mut connection, _) = connections.accept().expect("a connection");
            let mut question = [0; 6];
            connection.read_exact(&mut question).expect("a question");
            assert_eq!(&question, b"\0\x04long");
            connection.write_all(b"\0\x03yes").expect("an answer");
        });
        let answer = resolver.ask_by_datagram(b"short").await;
        assert_eq!(answer.expect("an answer"), b"short!");
        let answer = resolver.ask_by_connection(b"long").await;
        assert_eq!(answer.expect("an answer"), b"yes");
        server.join().expect("a server");
    }
}
