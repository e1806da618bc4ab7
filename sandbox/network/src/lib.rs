//! The network of a sandbox on the host.
//!
//! A sandbox's network is what an engine has set up in a network namespace. For each interface there, the virtual machine
//! has a network card, whose other end is a tap in the same namespace; traffic control passes every frame that arrives at
//! the one on to the other. The interface keeps its addresses, but nobody in the namespace hears anything through it any
//! more: the guest, which has the same addresses, answers.
//!
//! ```text
//!     virtual machine      │ namespace                                     │ host
//!        card eth0 ────────┼── tap ──(own addresses only)──▶ eth0 ─────────┼──▶ bridge, …
//!                          │   tap ◀──────────────────────── eth0 ◀────────┼───
//! ```
//!
//! [`Network`] is a guard: nothing of it is left in the namespace once it is dropped. Taps are gone with their
//! descriptors, so after `kill -9` only filters on the engine's interface can be left, which [`sweep`] finds.

mod bridge;
mod control;
mod error;
mod filter;
mod link;
mod loopback;
mod namespace;
mod network;
mod own;
mod process;
mod resolver;
mod room;
mod snapshot;
mod tap;
mod tenant;

pub use bridge::{Bridge, stand_in};
pub use error::NetworkError;
pub use loopback::Loopback;
pub use namespace::{Identity, Namespace, enter_for_good};
pub use network::{CardPlug, Network, Options, Plan, Rates, sweep};
pub use resolver::Resolver;
pub use snapshot::{Address, Interface, Mac, Neighbour, Route, Snapshot};
pub use tenant::Tenant;
