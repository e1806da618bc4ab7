//! rtnetlink (Linux `Documentation/userspace-api/netlink/intro.rst`): messages as they are on the wire, and the socket
//! that takes them to the kernel.
//!
//! Only what is the same for everybody: what the attributes of a message mean is known to who sends it. An attribute that
//! nobody asks for is skipped, so that a newer kernel with more of them does no harm.

mod message;
mod socket;

pub use message::{Attributes, Message, Received};
pub use socket::{Events, Socket};
