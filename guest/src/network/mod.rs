//! The guest's network: the host says how it is to be, and it is made so.
//!
//! Nothing is found out here. Addresses are given without asking the neighbours whether they are free, and no router is
//! listened to: the host's side has done both.

mod addresses;
mod card;
mod connect;
mod neighbours;
mod resolver;
mod routes;

pub use connect::connect;
pub use resolver::serve as serve_names;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use cofferdam_netlink::Socket;
use cofferdam_protocol::UpdateNetworkRequest;

use self::card::Cards;

/// Why the network cannot be made as it is to be.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The kernel refuses.
    #[error("cannot {doing}")]
    Kernel {
        /// What was to be done.
        doing: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A value of the request's is impossible.
    #[error("{what} {value}")]
    Invalid {
        /// Which one.
        what: &'static str,
        /// What it is.
        value: String,
    },
    /// There is no card that was born with this address.
    #[error("no network card {0}")]
    NoCard(String),
}

fn kernel(doing: impl Into<String>) -> impl FnOnce(io::Error) -> NetworkError {
    let doing = doing.into();
    move |source| NetworkError::Kernel { doing, source }
}

/// What was made of the network so far.
#[derive(Debug, Clone, Default)]
pub struct Network {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    made: UpdateNetworkRequest,
    cards: Cards,
}

impl Network {
    /// Makes the network as it is to be. What a container has added by itself stays.
    ///
    /// # Errors
    /// The first thing that could not be done; the rest is as it was, and the next call goes on from there.
    pub async fn update(&self, request: UpdateNetworkRequest) -> Result<(), NetworkError> {
        let state = Arc::clone(&self.state);
        // Cards that come and go have the kernel wait for its own threads.
        tokio::task::spawn_blocking(move || {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.update(request)
        })
        .await
        .map_err(|error| kernel("change the network")(error.into()))?
    }
}

impl State {
    fn update(&mut self, request: UpdateNetworkRequest) -> Result<(), NetworkError> {
        let mut socket = Socket::open().map_err(kernel("open a netlink socket"))?;
        // Before the cards: a route's interface may be about to change.
        routes::remove(&mut socket, &self.made.routes, &request.routes)?;
        let indices = self.cards.arrange(&mut socket, &request.interfaces)?;
        for interface in &request.interfaces {
            let Some(&index) = indices.get(&interface.name) else {
                continue;
            };
            let earlier = self.made.interfaces.iter();
            let earlier = earlier
                .filter(|one| one.card == interface.card)
                .flat_map(|one| &one.addresses);
            addresses::update(&mut socket, index, interface, earlier)?;
        }
        neighbours::remove(
            &mut socket,
            &indices,
            &self.made.neighbours,
            &request.neighbours,
        )?;
        routes::add(&mut socket, &indices, &request.routes)?;
        neighbours::add(&mut socket, &indices, &request.neighbours)?;
        self.made = request;
        Ok(())
    }
}

/// An address of 4 or 16 bytes, and its family.
fn family(address: &[u8]) -> Result<u8, NetworkError> {
    match address.len() {
        4 => Ok(libc::AF_INET as u8),
        16 => Ok(libc::AF_INET6 as u8),
        _ => Err(NetworkError::Invalid {
            what: "not an address:",
            value: format!("{address:?}"),
        }),
    }
}

fn bits(prefix: u32) -> Result<u8, NetworkError> {
    u8::try_from(prefix).map_err(|_| NetworkError::Invalid {
        what: "not a number of an address's bits:",
        value: prefix.to_string(),
    })
}

/// An address as people write it.
fn written(address: &[u8]) -> String {
    if let Ok(four) = <[u8; 4]>::try_from(address) {
        return std::net::Ipv4Addr::from(four).to_string();
    }
    match <[u8; 16]>::try_from(address) {
        Ok(sixteen) => std::net::Ipv6Addr::from(sixteen).to_string(),
        Err(_) => format!("{address:?}"),
    }
}

/// Done, if there was nothing to do.
fn unless_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::ESRCH | libc::ENODEV | libc::EADDRNOTAVAIL)
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}
