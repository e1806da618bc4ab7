//! Docker's server for names, as a container sees it: it listens on 127.0.0.11 of the namespace, and so of the guest.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use harness::{Cofferdam, Namespaces};

use crate::{LIMIT, background, expect, inside, pair};

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)), 53);

/// Answers every question with its own text in capitals, from both transports, until it is dropped.
pub struct Server {
    ended: Arc<AtomicBool>,
    questions: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens in a namespace of this name.
    pub fn start(namespaces: &Namespaces, name: &str) -> Self {
        let (datagrams, connections) = namespaces.inside(name, || {
            let datagrams = UdpSocket::bind(ADDRESS).expect("a socket");
            (datagrams, TcpListener::bind(ADDRESS).expect("a listener"))
        });
        let ended = Arc::new(AtomicBool::new(false));
        let questions = Arc::new(AtomicUsize::new(0));
        let pause = Duration::from_millis(50);
        datagrams.set_read_timeout(Some(pause)).expect("a limit");
        connections.set_nonblocking(true).expect("a listener");
        let (end, count) = (Arc::clone(&ended), Arc::clone(&questions));
        let by_datagram = std::thread::spawn(move || {
            let mut question = [0; 70_000];
            while !end.load(Ordering::Relaxed) {
                if let Ok((length, from)) = datagrams.recv_from(&mut question) {
                    count.fetch_add(1, Ordering::Relaxed);
                    let _lost = datagrams.send_to(&question[..length].to_ascii_uppercase(), from);
                }
            }
        });
        let end = Arc::clone(&ended);
        let by_connection = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                match connections.accept() {
                    Ok((connection, _)) => {
                        let _broken = converse(connection);
                    }
                    Err(_) => std::thread::sleep(pause),
                }
            }
        });
        Self {
            ended,
            questions,
            threads: vec![by_datagram, by_connection],
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ended = thread.join();
        }
    }
}

fn converse(mut connection: TcpStream) -> std::io::Result<()> {
    connection.set_nonblocking(false)?;
    let mut length = [0; 2];
    connection.read_exact(&mut length)?;
    let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
    connection.read_exact(&mut question)?;
    connection.write_all(&length)?;
    connection.write_all(&question.to_ascii_uppercase())
}

const LISTENS: &str = "netstat -lnut | grep -c '127.0.0.11:53 '";

#[test]
fn questions_reach_the_namespaces_server() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let namespaces = pair();
    let server = Server::start(&namespaces, "a");
    background(&cofferdam, &namespaces, "c", &[]);
    let listens = inside(&cofferdam, "c", LISTENS);
    assert_eq!(listens.stdout, "2\n", "{listens:?}");
    // Twelve bytes by TCP, with their length in front; longer ones than anybody asks are not taken.
    let ask = |length: &str, text: &str| {
        let script = format!("(printf '{length}{text}'; sleep 2) | nc -w 60 127.0.0.11 53");
        inside(&cofferdam, "c", &script).stdout
    };
    assert_eq!(ask("\\000\\014", "who is there"), "\0\x0cWHO IS THERE");
    assert_eq!(ask("\\377\\377", "who is there"), "");
    // By UDP: what comes back is no DNS answer, and that is said.
    let before = server.questions.load(Ordering::Relaxed);
    let asked = inside(
        &cofferdam,
        "c",
        "nslookup -type=a some.name 127.0.0.11 2>&1",
    );
    assert!(
        server.questions.load(Ordering::Relaxed) > before,
        "{asked:?}"
    );
    // A guest that asks without end is served as it can be, and nobody else suffers.
    inside(
        &cofferdam,
        "c",
        "for i in 1 2 3 4 5 6 7 8 9; do for j in 1 2 3 4 5 6 7 8 9; do nslookup -type=a a$i.b$j 127.0.0.11 > /dev/null 2>&1 & done; done; sleep 5; killall nslookup 2> /dev/null",
    );
    assert_eq!(ask("\\000\\005", "still"), "\0\x05STILL");
}

#[test]
fn the_server_comes_later_and_is_started_again() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let namespaces = pair();
    background(&cofferdam, &namespaces, "c", &[]);
    assert_eq!(inside(&cofferdam, "c", LISTENS).stdout, "0\n");
    // As Docker does it: first the server, then the interface.
    let server = Server::start(&namespaces, "a");
    namespaces.ip("a", "addr add 10.77.0.22/24 dev eth0");
    expect(&cofferdam, "c", &format!("test \"$({LISTENS})\" = 2"));
    let ask = "(printf '\\000\\005still'; sleep 2) | nc -w 60 127.0.0.11 53 | grep STILL";
    expect(&cofferdam, "c", ask);
    // An engine that is started again does not change the network.
    drop(server);
    namespaces.ip("a", "addr del 10.77.0.22/24 dev eth0");
    assert_eq!(inside(&cofferdam, "c", ask).code, 1);
    let _server = Server::start(&namespaces, "a");
    expect(&cofferdam, "c", ask);
    cofferdam.ok(["rm", "-f", "c"]);
    cofferdam.assert_nothing_left();
    let left = namespaces.traits("a");
    assert!(
        !left.contains("clsact") && !left.contains("cofferdam"),
        "{left}"
    );
}

/// The server asks others with sockets of the namespace: it, and nobody else there, hears what comes from outside.
#[test]
fn the_servers_own_questions_are_answered() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let namespaces = pair();
    let _server = Server::start(&namespaces, "a");
    background(&cofferdam, &namespaces, "c", &[]);
    for own in ["10.77.0.1:5300", "[fd77::1]:5300"] {
        let own: SocketAddr = own.parse().expect("an address");
        let far = namespaces.inside("b", || UdpSocket::bind(own).expect("a socket"));
        far.set_read_timeout(Some(LIMIT)).expect("a limit");
        let near = namespaces.inside("a", || {
            let any = if own.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            UdpSocket::bind(any).expect("a socket")
        });
        near.set_read_timeout(Some(LIMIT)).expect("a limit");
        near.connect(own).expect("a way");
        near.send(b"question").expect("sent");
        let mut heard = [0; 100];
        let (length, from) = far.recv_from(&mut heard).expect("the question");
        far.send_to(&heard[..length], from).expect("sent");
        let length = near.recv(&mut heard).expect("the answer");
        assert_eq!(&heard[..length], b"question");
        // A connection, too.
        let listener = namespaces.inside("b", || TcpListener::bind(own).expect("a listener"));
        let mut near = namespaces
            .inside("a", || TcpStream::connect_timeout(&own, LIMIT))
            .expect("a connection");
        let (mut far, _) = listener.accept().expect("the same");
        far.write_all(b"welcome").expect("sent");
        let mut heard = [0; 7];
        near.read_exact(&mut heard).expect("an answer");
        assert_eq!(&heard, b"welcome");
    }
    // Who only listens there is as far away as ever.
    let idle = namespaces.inside("a", || UdpSocket::bind("0.0.0.0:5301").expect("a socket"));
    let short = Some(Duration::from_secs(3));
    idle.set_read_timeout(short).expect("a limit");
    let far = namespaces.inside("b", || UdpSocket::bind("10.77.0.1:0").expect("a socket"));
    far.send_to(b"hello", "10.77.0.2:5301").expect("sent");
    assert!(idle.recv(&mut [0; 100]).is_err(), "it heard");
    let listener = namespaces.inside("a", || TcpListener::bind("0.0.0.0:5302"));
    let _listener = listener.expect("a listener");
    let target = "10.77.0.2:5302".parse().expect("an address");
    let reached = namespaces.inside("b", || {
        TcpStream::connect_timeout(&target, Duration::from_secs(3)).is_ok()
    });
    assert!(!reached);
    // And the guest has its own network.
    for target in ["10.77.0.1", "fd77::1"] {
        let pinged = inside(&cofferdam, "c", &format!("ping -c 2 -W 30 {target}"));
        assert_eq!(pinged.code, 0, "{pinged:?}");
    }
}
