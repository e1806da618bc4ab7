//! Streams of `exec`, `attach` and `port-forward`: WebSockets whose messages begin with a channel's number.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::{Message, WebSocket};

/// Kubernetes' fourth protocol: binary messages, one byte of channel first.
const PROTOCOL: &str = "v4.channel.k8s.io";

/// No answer takes that long.
const LIMIT: Duration = Duration::from_secs(120);

/// What goes wrong with a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamError(String);

impl std::fmt::Display for StreamError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for StreamError {}

/// An open stream. Dropping it closes the connection.
#[derive(Debug)]
pub struct Stream {
    socket: WebSocket<TcpStream>,
    received: BTreeMap<u8, Vec<u8>>,
    ended: bool,
}

impl Stream {
    /// What `exec` and `attach` read.
    pub const STDIN: u8 = 0;
    /// What a process writes to stdout, and to a terminal.
    pub const STDOUT: u8 = 1;
    /// What it writes to stderr.
    pub const STDERR: u8 = 2;
    /// How it ended: a `Status` in JSON.
    pub const RESULT: u8 = 3;
    /// Sizes of a terminal: `{"Width": …, "Height": …}`.
    pub const SIZE: u8 = 4;

    /// Opens the address that the engine gave.
    ///
    /// # Errors
    /// Nobody listens there, or does not speak the protocol.
    pub fn open(url: &str) -> Result<Self, StreamError> {
        let failed = |error: String| StreamError(format!("cannot open {url}: {error}"));
        let address = url
            .strip_prefix("http://")
            .ok_or_else(|| failed("not an http address".to_owned()))?;
        let host = address.split(['/', '?']).next().unwrap_or_default();
        let tcp = TcpStream::connect(host).map_err(|error| failed(error.to_string()))?;
        tcp.set_read_timeout(Some(LIMIT))
            .and_then(|()| tcp.set_write_timeout(Some(LIMIT)))
            .map_err(|error| failed(error.to_string()))?;
        let mut request = format!("ws://{address}")
            .into_client_request()
            .map_err(|error| failed(error.to_string()))?;
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", HeaderValue::from_static(PROTOCOL));
        let (socket, _answer) =
            tungstenite::client(request, tcp).map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            socket,
            received: BTreeMap::new(),
            ended: false,
        })
    }

    /// Sends bytes on a channel.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, channel: u8, bytes: &[u8]) -> Result<(), StreamError> {
        let mut message = vec![channel];
        message.extend(bytes);
        self.socket
            .send(Message::binary(message))
            .map_err(|error| StreamError(format!("cannot write to the stream: {error}")))
    }

    /// Everything received on a channel so far.
    #[must_use]
    pub fn received(&self, channel: u8) -> &[u8] {
        self.received.get(&channel).map_or(&[], Vec::as_slice)
    }

    /// Whether the other end has closed it.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Reads until what a channel received has this text in it; answers all of the channel.
    ///
    /// # Errors
    /// The stream ends without, or nothing comes for minutes.
    pub fn expect(&mut self, channel: u8, text: &str) -> Result<String, StreamError> {
        loop {
            let so_far = String::from_utf8_lossy(self.received(channel)).into_owned();
            if so_far.contains(text) {
                return Ok(so_far);
            }
            if self.ended {
                return Err(StreamError(format!(
                    "the stream ended without {text:?} on channel {channel}: {:?}",
                    self.texts()
                )));
            }
            self.step()?;
        }
    }

    /// Waits until something comes.
    ///
    /// # Errors
    /// Nothing comes for minutes.
    pub fn wait(&mut self) -> Result<(), StreamError> {
        self.step()
    }

    /// Reads to the end.
    ///
    /// # Errors
    /// Nothing comes for minutes.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        while !self.ended {
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), StreamError> {
        match self.socket.read() {
            Ok(Message::Binary(bytes)) => {
                if let Some((channel, rest)) = bytes.split_first() {
                    self.received.entry(*channel).or_default().extend(rest);
                }
            }
            Ok(Message::Close(_))
            | Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => {
                self.ended = true;
            }
            // Engines of before 2.0 close the connection without a word.
            Err(tungstenite::Error::Protocol(
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )) => self.ended = true,
            Err(tungstenite::Error::Io(error))
                if [
                    ErrorKind::ConnectionReset,
                    ErrorKind::BrokenPipe,
                    ErrorKind::UnexpectedEof,
                ]
                .contains(&error.kind()) =>
            {
                self.ended = true;
            }
            Ok(_) => {}
            Err(error) => {
                return Err(StreamError(format!(
                    "cannot read from the stream: {error}; it had {:?}",
                    self.texts()
                )));
            }
        }
        Ok(())
    }

    fn texts(&self) -> BTreeMap<u8, String> {
        self.received
            .iter()
            .map(|(channel, bytes)| (*channel, String::from_utf8_lossy(bytes).into_owned()))
            .collect()
    }
}
