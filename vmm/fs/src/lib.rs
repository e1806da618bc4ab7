//! A share that another process serves: virtio-fs (virtio 1.3, 5.11), as the front end of vhost-user.
//!
//! The device has no data path. Once the driver is ready, the server has the guest's memory, the events by which the
//! driver kicks its queues and the event that interrupts the driver; from then on guest and server talk to each other
//! and this process only watches the socket for its end.
//!
//! ```text
//!                    activate                every answer is here
//!   connect ──▶ idle ─────────▶ starting ─────────────────────────▶ serving
//!                ▲                  │ │ a refusal, no answer in time     │ │ the server hangs up,
//!                └──── reset ───────┘ │                                  │ │ or speaks unasked
//!                ▲                    ▼                                  │ │
//!                │                  gone ◀───────────────────────────────┼─┘
//!                └──── reset ────────────────────────────────────────────┘
//! ```
//!
//! - [`Fs::connect`] does all that needs no queues, and waits for the server while it does so: owner, features, memory.
//! - `activate` runs on a thread of a virtual CPU: it writes its messages and returns. The answers come to the event
//!   loop; so does the timer that is armed until the last of them is there, and never else.
//! - `reset` has to wait: until the rings are stopped, two seconds at most until the server has given back what it has
//!   taken from them, and half a second more until it has forgotten the driver's files. A guest can make it wait that
//!   long once; a server that does not finish is gone.
//! - *Gone* is for ever: what the server knew of the guest's files went with it. The driver is told that the device
//!   needs a reset, and the machine by [`Handle::server`].
//!
//! The server is ours and confined, but a guest may have taken it over: its messages have one length, are expected one
//! by one in order, and nothing else is read. It gets guest addresses in place of this process's own, which it needs
//! for nothing.
//!
//! Messages are built here and not by [`vhost`]'s front end, from which only their numbers are taken: that one blocks,
//! and takes a timeout of its socket as a reason to try again for ever.
//!
//! System calls: `sendmsg`, `read`, `ppoll`, `shutdown`, `timerfd_settime`, `epoll_ctl`, `write` (on events).

mod device;
mod error;
mod handle;
mod link;
mod session;

pub use device::{Fs, Setup};
pub use error::Error;
pub use handle::{Handle, Server};
pub use link::Fault;
