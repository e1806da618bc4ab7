//! The network of one sandbox: its cards, and the interfaces that they stand for.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use cofferdam_netlink::{Events, Socket};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::control::{self, Action, OWN, PASS, REST};
use crate::error::NetworkError;
use crate::filter::{self, DROP, MOST_ADDRESSES};
use crate::link;
use crate::namespace::Namespace;
use crate::own;
use crate::process::is_process;
use crate::resolver::{self, Resolver};
use crate::room;
use crate::snapshot::{self, Interface, Mac, Snapshot};
use crate::tap;

/// `RTMGRP_LINK`, `_NEIGH`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV6_IFADDR`, `_IPV6_ROUTE`.
const GROUPS: u32 = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400;

/// Cards for the first interfaces of a namespace that an engine fills when the machine runs already: nobody says how many
/// there will be.
const EXPECTED: usize = 3;

/// How a sandbox is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Queues of each card; one for each virtual processor is the most that is of use.
    pub queues: u32,
    /// Cards beside those for the interfaces that are there: for interfaces that come later.
    pub spares: usize,
    /// The most cards.
    pub most: usize,
    /// Whether frames are dropped that the interface itself would not have sent.
    pub anti_spoofing: bool,
    /// The most bits a second to and from the guest, on each interface.
    pub rates: Rates,
}

/// Bits a second; none: as much as there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// To the guest.
    pub receive: Option<u64>,
    /// From the guest.
    pub send: Option<u64>,
}

/// A network card of the virtual machine, seen from the host.
#[derive(Debug)]
pub struct CardPlug {
    /// The Ethernet address it is born with, by which the agent knows it; not that of any interface.
    pub mac: Mac,
    /// The queues of its tap.
    pub queues: Vec<OwnedFd>,
}

/// The network of one sandbox. Dropping it takes everything out of the namespace again that was put in.
#[derive(Debug)]
pub struct Network {
    // Taken off before the socket goes.
    cards: Vec<Card>,
    socket: Socket,
    events: AsyncFd<Events>,
    resolver: Resolver,
    options: Options,
    seen: Option<Snapshot>,
    /// Interfaces for which there is no card.
    left_out: Vec<String>,
    is_unfinished: bool,
}

#[derive(Debug)]
struct Card {
    tap: u32,
    mac: Mac,
    wired: Option<Interface>,
    /// The namespace's own connections are answered.
    answered: bool,
}

/// Which interface stands behind which card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The card's own address and the interface's name.
    pub cards: Vec<(Mac, String)>,
    /// Everything about the interfaces.
    pub snapshot: Snapshot,
}

impl Network {
    /// Makes the cards of a sandbox whose network is this namespace, and connects those for the interfaces that are
    /// there. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// [`NetworkError`]; nothing is left in the namespace then.
    pub fn connect(
        namespace: &Arc<Namespace>,
        options: Options,
    ) -> Result<(Self, Vec<CardPlug>), NetworkError> {
        let (socket, events, snapshot) = namespace.enter(|| {
            let open = |action: &str| NetworkError::kernel(action.to_owned());
            let mut socket = Socket::open().map_err(open("open a netlink socket"))?;
            // Before the first look, so that nothing is missed after it.
            let events = Events::open(GROUPS).map_err(open("listen to changes"))?;
            let others = link::owners(&mut socket).map_err(open("look for taps"))?;
            if others.iter().any(|&owner| is_process(owner)) {
                return Err(NetworkError::Unsupported {
                    what: format!("network namespace {}", namespace.path().display()),
                    why: "it belongs to another virtual machine; connect both to one network",
                });
            }
            let mut snapshot = snapshot::read(&mut socket, &[])?;
            snapshot.resolver = resolver::is_here()?;
            Ok((socket, events, snapshot))
        })?;
        #[expect(
            deprecated,
            reason = "its hole is an `AsRawFd` that lies; that of `Events` does not"
        )]
        let events = AsyncFd::with_interest(events, Interest::READABLE)
            .map_err(NetworkError::kernel("listen to changes"))?;
        let mut network = Self {
            cards: Vec::new(),
            socket,
            events,
            resolver: Resolver::new(Arc::clone(namespace)),
            options,
            seen: None,
            left_out: Vec::new(),
            is_unfinished: namespace.is_unfinished(),
        };
        let wanted = snapshot.interfaces.len();
        let spares = match (wanted, network.is_unfinished) {
            // It stays so: that is what `--network none` is.
            (0, false) => 0,
            (0, true) => EXPECTED + options.spares,
            _ => options.spares,
        };
        let cards = (wanted + spares).min(options.most);
        if let Some(interface) = snapshot.interfaces.get(cards) {
            return Err(NetworkError::NoCard {
                interface: interface.name.clone(),
                cards,
            });
        }
        let taps = namespace.enter(|| {
            (0..cards)
                .map(|_| tap::create(options.queues))
                .collect::<Result<Vec<_>, _>>()
                .map_err(NetworkError::kernel("make a tap (/dev/net/tun)"))
        })?;
        let mut plugs = Vec::new();
        for (number, (name, queues)) in taps.into_iter().enumerate() {
            let mac = card_mac(number);
            let failed = || NetworkError::kernel(format!("prepare tap {name}"));
            let tap = link::index(&mut network.socket, &name).map_err(failed())?;
            network.cards.push(Card {
                tap,
                mac,
                wired: None,
                answered: false,
            });
            link::sign(&mut network.socket, tap, std::process::id()).map_err(failed())?;
            link::silence(&mut network.socket, tap).map_err(failed())?;
            control::open_ingress(&mut network.socket, tap).map_err(failed())?;
            control::set_filter(
                &mut network.socket,
                tap,
                REST,
                &filter::always(DROP),
                Action::Answer,
            )
            .map_err(NetworkError::kernel(
                "filter frames (cls_bpf, CONFIG_NET_CLS_BPF)",
            ))?;
            plugs.push(CardPlug { mac, queues });
        }
        network.adopt(snapshot)?;
        Ok((network, plugs))
    }

    /// What the guest is to have.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let snapshot = self.seen.clone().unwrap_or_default();
        let cards = self.cards.iter();
        Plan {
            cards: cards
                .filter_map(|card| Some((card.mac, card.wired.as_ref()?.name.clone())))
                .collect(),
            snapshot,
        }
    }

    /// Whether an engine may set up its first interfaces while the machine runs.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.is_unfinished
    }

    /// The engine's server for names, if the plan says that it is there.
    #[must_use]
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Waits until something in the namespace has changed, whether that concerns the guest or not.
    ///
    /// # Errors
    /// When changes cannot be heard of any more.
    pub async fn heard(&self) -> Result<(), NetworkError> {
        let failed = || NetworkError::kernel("listen to changes in the network namespace");
        loop {
            let mut ready = self.events.readable().await.map_err(failed())?;
            let heard = self.events.get_ref().drain().map_err(failed())?;
            ready.clear_ready();
            if heard {
                return Ok(());
            }
        }
    }

    /// Follows what has changed; answers when the guest has to follow, too.
    ///
    /// # Errors
    /// What cannot be followed; the next change is followed all the same.
    pub fn follow(&mut self) -> Result<Option<Plan>, NetworkError> {
        let ours: Vec<_> = self.cards.iter().map(|card| card.tap).collect();
        let mut snapshot = snapshot::read(&mut self.socket, &ours)?;
        // One that was there is away while its engine is started again, which nothing tells of.
        let was_there = self.seen.as_ref().is_some_and(|seen| seen.resolver);
        snapshot.resolver = was_there || self.resolver.is_there()?;
        let wired = self.cards.iter().filter_map(|card| card.wired.as_ref());
        let wired: Vec<_> = wired.map(|interface| interface.index).collect();
        let left_out = room::leave_out(&mut snapshot, &wired, self.cards.len());
        self.tell(left_out);
        if self.seen.as_ref() == Some(&snapshot) {
            return Ok(None);
        }
        self.adopt(snapshot)?;
        Ok(Some(self.plan()))
    }

    /// Says which interfaces stay out of the guest, once.
    fn tell(&mut self, left_out: Vec<String>) {
        for interface in &left_out {
            if !self.left_out.contains(interface) {
                let error = NetworkError::NoCard {
                    interface: interface.clone(),
                    cards: self.cards.len(),
                };
                tracing::warn!(%error, "an interface stays out of the guest");
            }
        }
        self.left_out = left_out;
    }

    /// Connects the cards as the snapshot has it.
    fn adopt(&mut self, snapshot: Snapshot) -> Result<(), NetworkError> {
        for card in &mut self.cards {
            let Some(before) = &card.wired else { continue };
            let now = snapshot
                .interfaces
                .iter()
                .find(|one| one.index == before.index);
            if now.is_none() {
                card.unplug(&mut self.socket);
            }
        }
        for interface in &snapshot.interfaces {
            let known = self.cards.iter_mut().position(|card| {
                card.wired
                    .as_ref()
                    .is_some_and(|wired| wired.index == interface.index)
            });
            let place = match known {
                Some(place) => place,
                None => self
                    .cards
                    .iter()
                    .position(|card| card.wired.is_none())
                    .ok_or_else(|| NetworkError::NoCard {
                        interface: interface.name.clone(),
                        cards: self.cards.len(),
                    })?,
            };
            if self.cards[place].wired.as_ref() != Some(interface) {
                self.cards[place].plug(&mut self.socket, interface, self.options)?;
            }
            self.cards[place].answer(&mut self.socket, snapshot.resolver);
        }
        self.seen = Some(snapshot);
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for card in &mut self.cards {
            card.unplug(&mut self.socket);
            if let Err(error) = link::remove(&mut self.socket, card.tap) {
                tracing::debug!(%error, "a tap is left to go by itself");
            }
        }
    }
}

impl Card {
    /// Connects it to an interface, or follows the interface's changes.
    fn plug(
        &mut self,
        socket: &mut Socket,
        interface: &Interface,
        options: Options,
    ) -> Result<(), NetworkError> {
        let name = &interface.name;
        if interface.addresses.len() > MOST_ADDRESSES {
            return Err(NetworkError::Unsupported {
                what: format!("network interface {name}"),
                why: "it has more than 64 addresses",
            });
        }
        let is_new = self.wired.is_none();
        if is_new {
            free(socket, interface)?;
        }
        // From here on there is something to take off again.
        self.wired = Some(interface.clone());
        let failed = || NetworkError::kernel(format!("connect network interface {name}"));
        let from = if options.anti_spoofing {
            filter::from_guest(interface)
        } else {
            filter::always(filter::MATCH)
        };
        control::set_filter(
            socket,
            self.tap,
            PASS,
            &from,
            Action::SendOutOf(interface.index),
        )
        .map_err(failed())?;
        link::raise(socket, self.tap, interface.mtu).map_err(failed())?;
        if is_new {
            control::limit(socket, self.tap, options.rates.receive).map_err(failed())?;
            control::limit(socket, interface.index, options.rates.send).map_err(failed())?;
            control::open_ingress(socket, interface.index).map_err(failed())?;
            control::set_filter(
                socket,
                interface.index,
                PASS,
                &filter::to_guest(),
                Action::SendOutOf(self.tap),
            )
            .map_err(failed())?;
        }
        Ok(())
    }

    /// Has answers to the namespace's own connections come to it, or not any more. Without them the guest has its
    /// network all the same.
    fn answer(&mut self, socket: &mut Socket, wanted: bool) {
        let Some(interface) = self.wired.as_ref().filter(|_| self.answered != wanted) else {
            return;
        };
        let done = if wanted {
            own::load(self.tap)
                .and_then(|program| control::set_program(socket, interface.index, OWN, &program))
        } else {
            control::remove_filter(socket, interface.index, OWN)
        };
        self.answered = wanted;
        if let Err(error) = done {
            tracing::warn!(
                %error,
                interface = interface.name,
                "the engine's server for names is not answered by servers beyond the host"
            );
        }
    }

    /// Takes it off its interface, which may be gone.
    fn unplug(&mut self, socket: &mut Socket) {
        self.answered = false;
        let Some(interface) = self.wired.take() else {
            return;
        };
        let done = control::clear(socket, interface.index)
            .and_then(|()| control::remove_filter(socket, self.tap, PASS))
            .and_then(|()| link::lower(socket, self.tap));
        if let Err(error) = done {
            // The tap is gone with the VMM, most likely.
            tracing::debug!(%error, interface = interface.name, "not taken off cleanly");
        }
    }
}

/// Makes sure that nobody else has the interface's frames; what a killed sandbox has left is taken off.
fn free(socket: &mut Socket, interface: &Interface) -> Result<(), NetworkError> {
    let failed = || NetworkError::kernel(format!("look at network interface {}", interface.name));
    let Some(wire) = control::wire(socket, interface.index).map_err(failed())? else {
        return Ok(());
    };
    // A killed sandbox's tap may take a moment to go.
    let is_owned = is_process(wire.owner);
    let is_used = link::indices(socket)
        .map_err(failed())?
        .contains(&wire.target);
    if is_owned && is_used {
        return Err(NetworkError::Taken {
            interface: interface.name.clone(),
        });
    }
    control::clear(socket, interface.index).map_err(failed())
}

/// Takes off what a sandbox has left in a namespace whose process, with this number, was killed.
///
/// # Errors
/// What the kernel refuses.
pub fn sweep(namespace: &Namespace, owner: u32) -> Result<(), NetworkError> {
    namespace.enter(|| {
        let failed = || NetworkError::kernel("clear up in the network namespace");
        let mut socket = Socket::open().map_err(failed())?;
        for index in link::indices(&mut socket).map_err(failed())? {
            let wire = control::wire(&mut socket, index).map_err(failed())?;
            if wire.is_some_and(|wire| wire.owner == owner) {
                control::clear(&mut socket, index).map_err(failed())?;
            }
        }
        for tap in link::signed(&mut socket, owner).map_err(failed())? {
            link::remove(&mut socket, tap).map_err(failed())?;
        }
        Ok(())
    })
}

/// Locally administered, and told apart by its last byte.
fn card_mac(number: usize) -> Mac {
    [2, 0x63, 0x64, 0, 0, u8::try_from(number).unwrap_or(u8::MAX)]
}
