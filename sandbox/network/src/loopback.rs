//! Connections to a namespace's loopback, whatever their port.
//!
//! Whoever enters the namespace from the host and connects to `localhost` there wants somebody in the guest: so does the
//! engine behind `kubectl port-forward`. Nobody knows which port it will be. So a listener takes all: an eBPF program,
//! which the kernel asks for the listening socket of a connection that arrives (`BPF_PROG_TYPE_SK_LOOKUP`, Linux 5.9),
//! answers with ours. The port is then that of the accepted connection's own end. No packet is changed, no rule of a packet
//! filter is needed, and all of it is gone with the descriptors: nothing can be left of it, whoever is killed.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use cofferdam_bpf::{self as bpf, Assembly};
use tokio::net::TcpStream;

use crate::error::NetworkError;
use crate::namespace::Namespace;

/// `BPF_PROG_TYPE_SK_LOOKUP`, and where it runs.
const KIND: u32 = 30;
const PLACE: u32 = 36;

// Of `struct bpf_sk_lookup`.
const FAMILY: i16 = 8;
const PROTOCOL: i16 = 12;
const LOCAL_IP4: i16 = 40;
const LOCAL_IP6: i16 = 44;

// The kernel's functions.
const MAP_LOOKUP: i32 = 1;
const SOCKET_RELEASE: i32 = 86;
const SOCKET_ASSIGN: i32 = 124;

/// `SK_PASS`: the kernel goes on with the socket that was assigned, or looks for one itself.
const PASS: i32 = 1;

// Places in the map.
const FOUR: u32 = 0;
const SIX: u32 = 1;

/// All TCP connections to 127.0.0.0/8 and ::1 in a namespace, until it is dropped.
#[derive(Debug)]
pub struct Loopback {
    four: tokio::net::TcpListener,
    /// None where there is no IPv6.
    six: Option<tokio::net::TcpListener>,
    _link: OwnedFd,
}

impl Loopback {
    /// Takes them from now on. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// [`NetworkError`], where the kernel cannot do this; nothing is left in the namespace then.
    pub fn take(namespace: &Namespace) -> Result<Self, NetworkError> {
        let failed =
            |action: &str| NetworkError::kernel(format!("take connections to loopback: {action}"));
        let (four, six) = namespace.enter(|| {
            let four = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed("listen"))?;
            Ok((four, TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).ok()))
        })?;
        let map = bpf::socket_map(2).map_err(failed("bpf"))?;
        bpf::insert(&map, FOUR, four.as_fd()).map_err(failed("bpf"))?;
        if let Some(six) = &six {
            bpf::insert(&map, SIX, six.as_fd()).map_err(failed("bpf"))?;
        }
        let program = bpf::load(KIND, PLACE, &program(&map)).map_err(failed("bpf"))?;
        let link = bpf::link(&program, namespace.as_fd(), PLACE).map_err(failed("bpf"))?;
        let watch = |listener: TcpListener| {
            listener.set_nonblocking(true)?;
            tokio::net::TcpListener::from_std(listener)
        };
        Ok(Self {
            four: watch(four).map_err(failed("listen"))?,
            six: six.map(watch).transpose().map_err(failed("listen"))?,
            _link: link,
        })
    }

    /// The next connection, and what it was made to.
    ///
    /// # Errors
    /// The operating system's answer; another call may do better.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let six = async {
            match &self.six {
                Some(six) => six.accept().await,
                None => std::future::pending().await,
            }
        };
        let (connection, _) = tokio::select! {
            accepted = self.four.accept() => accepted?,
            accepted = six => accepted?,
        };
        let wanted = connection.local_addr()?;
        Ok((connection, wanted))
    }
}

/// Answers with the listener for connections to loopback, and with nothing for any other.
fn program(map: &OwnedFd) -> Assembly {
    let mut program = Assembly::default();
    let (context, key) = (6, -4);
    program.copy(context, 1);
    program.load(2, context, PROTOCOL);
    let mut others = vec![program.jump_unless(2, libc::IPPROTO_TCP)];
    program.load(2, context, FAMILY);
    let is_six = program.jump_if(2, libc::AF_INET6);
    others.push(program.jump_unless(2, libc::AF_INET));
    program.load(2, context, LOCAL_IP4);
    program.swap_word(2);
    program.shift_right(2, 24);
    others.push(program.jump_unless(2, 127));
    program.store_value(10, key, FOUR.cast_signed());
    let found = program.jump();
    program.land([is_six]);
    for word in 0..4 {
        program.load(2, context, LOCAL_IP6 + 4 * word);
        program.swap_word(2);
        others.push(program.jump_unless(2, i32::from(word == 3)));
    }
    program.store_value(10, key, SIX.cast_signed());
    program.land([found]);
    program.point_to(1, map);
    program.copy(2, 10);
    program.add(2, key.into());
    program.call(MAP_LOOKUP);
    others.push(program.jump_if(0, 0));
    program.copy(7, 0);
    program.copy(1, context);
    program.copy(2, 7);
    program.set(3, 0);
    // What it answers does not matter: without a socket the kernel looks for one itself.
    program.call(SOCKET_ASSIGN);
    program.copy(1, 7);
    program.call(SOCKET_RELEASE);
    program.land(others);
    program.end(PASS);
    program
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::link;
    use crate::namespace::tests::with_loopback;

    fn connect(namespace: &Namespace, to: (IpAddr, u16)) -> io::Result<TcpStream> {
        let limit = Duration::from_secs(10);
        let connected = namespace.enter(|| Ok(TcpStream::connect_timeout(&to.into(), limit)));
        connected.expect("a namespace")
    }

    #[tokio::test(flavor = "current_thread")]
    async fn every_port_is_ours_until_the_end() {
        let Some(namespace) = with_loopback() else {
            return;
        };
        let loopback = Loopback::take(&namespace).expect("connections");
        for to in [
            (IpAddr::from(Ipv4Addr::LOCALHOST), 80),
            (Ipv4Addr::new(127, 9, 8, 7).into(), 65535),
            (Ipv6Addr::LOCALHOST.into(), 1),
        ] {
            let _client = connect(&namespace, to).expect("a connection");
            let (_connection, wanted) = loopback.accept().await.expect("the same");
            assert_eq!(wanted, to.into());
        }
        drop(loopback);
        for to in [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            Ipv6Addr::LOCALHOST.into(),
        ] {
            assert_eq!(
                refused_at_last(&namespace, to),
                io::ErrorKind::ConnectionRefused
            );
        }
    }

    /// A child that another test's thread is just starting has our descriptors until it executes its program.
    fn refused_at_last(namespace: &Namespace, to: IpAddr) -> io::ErrorKind {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            match connect(namespace, (to, 80)) {
                Ok(_) => assert!(Instant::now() < end, "somebody listens"),
                Err(error) => return error.kind(),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn other_addresses_are_left_alone() {
        let Some(namespace) = with_loopback() else {
            return;
        };
        let _loopback = Loopback::take(&namespace).expect("connections");
        let own = Ipv4Addr::new(10, 9, 8, 7);
        let added = namespace.enter(|| {
            let mut socket = cofferdam_netlink::Socket::open().expect("a socket");
            let index = link::index(&mut socket, "lo").expect("loopback");
            crate::bridge::give(&mut socket, index, own.into(), 32).expect("an address");
            Ok(())
        });
        added.expect("a namespace");
        let refused = connect(&namespace, (own.into(), 80)).expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
