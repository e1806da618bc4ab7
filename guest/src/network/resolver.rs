//! The server for names that the engine has in the network namespace, as containers see it: on 127.0.0.11, port 53.
//!
//! What arrives there goes to the host as it is, and so do the answers come back. Who asks more than the host takes is not
//! answered, as by any server that is busy.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cofferdam_protocol::link::resolver::{
    LONGEST_QUESTION, MOST_QUESTIONS, NameMessage, Transport,
};
use cofferdam_protocol::link::{LinkStream, READY};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

const ADDRESS: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);

/// Connections at the same time.
const CONNECTIONS: usize = 16;
/// How long one may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// What waits for an answer.
enum Asker {
    Datagram(SocketAddr),
    Connection(oneshot::Sender<Vec<u8>>),
}

type Question = (Vec<u8>, oneshot::Sender<Vec<u8>>);

/// Passes questions on until the host ends the stream.
pub async fn serve(stream: LinkStream) {
    if let Err(error) = try_serve(stream).await {
        eprintln!("cofferdam-agent: names of other containers: {error}");
    }
}

async fn try_serve(mut stream: LinkStream) -> io::Result<()> {
    let datagrams = Arc::new(UdpSocket::bind(ADDRESS).await?);
    let listener = TcpListener::bind(ADDRESS).await?;
    stream.write_u8(READY).await?;
    let (mut answers, mut to_host) = tokio::io::split(stream);
    // Of all that wait for an answer. The reader of answers, which must not be interrupted, is a task of its own.
    let (answered, mut arrived) = mpsc::channel(MOST_QUESTIONS);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok(Some(answer)) = NameMessage::read(&mut answers, usize::from(u16::MAX)).await {
            if answered.send(answer).await.is_err() {
                return;
            }
        }
    });
    let (ask, mut asked) = mpsc::channel::<Question>(CONNECTIONS);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut open = HashMap::new();
    let mut tag = 0_u32;
    let mut buffer = vec![0; LONGEST_QUESTION];
    loop {
        let has_room = open.len() < MOST_QUESTIONS;
        let (message, asker) = tokio::select! {
            answer = arrived.recv() => {
                let Some(answer) = answer else { return Ok(()) };
                reply(&datagrams, open.remove(&answer.tag), answer.message);
                continue;
            }
            // A longer one is cut, and its sender told so by whoever answers.
            datagram = datagrams.recv_from(&mut buffer) => {
                match datagram {
                    Ok((length, from)) if has_room => {
                        (buffer[..length].to_vec(), Asker::Datagram(from))
                    }
                    // The error is that of an answer that nobody took.
                    Ok(_) | Err(_) => continue,
                }
            }
            Some((message, reply)) = asked.recv(), if has_room => {
                (message, Asker::Connection(reply))
            }
            accepted = listener.accept() => {
                if let Ok((connection, _)) = accepted
                    && let Ok(place) = Arc::clone(&places).try_acquire_owned()
                {
                    let ask = ask.clone();
                    tasks.spawn(async move {
                        let _broken = converse(connection, ask).await;
                        drop(place);
                    });
                }
                continue;
            }
            Some(_) = tasks.join_next() => continue,
        };
        tag = tag.wrapping_add(1);
        let transport = match asker {
            Asker::Datagram(_) => Transport::Datagram,
            Asker::Connection(_) => Transport::Connection,
        };
        open.insert(tag, asker);
        let question = NameMessage {
            tag,
            transport,
            message,
        };
        to_host.write_all(&question.encode()).await?;
        to_host.flush().await?;
    }
}

fn reply(datagrams: &UdpSocket, asker: Option<Asker>, message: Vec<u8>) {
    match asker {
        Some(Asker::Datagram(to)) if !message.is_empty() => {
            // Lost, as datagrams may be.
            let _lost = datagrams.try_send_to(&message, to);
        }
        Some(Asker::Connection(reply)) => {
            let _gone = reply.send(message);
        }
        Some(Asker::Datagram(_)) | None => {}
    }
}

/// Questions of one connection, one after the other. It ends when one has no answer.
async fn converse(mut connection: TcpStream, ask: mpsc::Sender<Question>) -> io::Result<()> {
    loop {
        let question = async {
            let length = usize::from(connection.read_u16().await?);
            if length > LONGEST_QUESTION {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
            let mut message = vec![0; length];
            connection.read_exact(&mut message).await?;
            Ok(message)
        };
        let message = timeout(SILENCE, question).await??;
        let (reply, answer) = oneshot::channel();
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        ask.send((message, reply)).await.map_err(|_| gone())?;
        let answer = answer.await.map_err(|_| gone())?;
        let length = match u16::try_from(answer.len()) {
            Ok(length @ 1..) => length,
            _ => return Ok(()),
        };
        connection.write_u16(length).await?;
        connection.write_all(&answer).await?;
    }
}
