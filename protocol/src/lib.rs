//! What host and guest say to each other: the agent service, the version handshake and the link.
//!
//! - [`agent`] and [`agent_ttrpc`] are generated from `proto/agent.proto`.
//! - [`link`] carries them, and every stdio stream, over one byte stream between host and guest.
//! - [`connect_agent`] and [`serve_agent`] join the two.

mod generated {
    include!(concat!(env!("OUT_DIR"), "/generated.rs"));
}
pub mod link;
mod rpc;

pub use generated::agent::*;
pub use generated::agent_ttrpc::{Agent, AgentClient, create_agent};
pub use generated::{agent, agent_ttrpc};
pub use rpc::{connect_agent, no_deadline, serve_agent};
pub use ttrpc;

/// Version of the agent service; host and guest must have the same.
pub const PROTOCOL_VERSION: u32 = 3;

/// Name of the virtio-serial port that carries the link.
pub const LINK_PORT: &str = "cofferdam.link";

/// On the kernel command line, with a port's number behind it: the link is a vsock stream to this port of the host instead.
pub const LINK_VSOCK: &str = "cofferdam.link=vsock:";

/// virtio-fs tag of the shared folder.
pub const SHARE_TAG: &str = "cofferdam";

/// Where the agent mounts the shared folder.
pub const SHARE_MOUNT: &str = "/run/cofferdam/share";

/// The AppArmor profile that the guest image brings. The agent loads it when a process is to have it.
pub const APPARMOR_PROFILE: &str = "cofferdam-default";

/// Word on the kernel command line that makes PID 1 print [`PROBE_OK`] and restart at once.
pub const PROBE_FLAG: &str = "cofferdam.probe";

/// What PID 1 prints when [`PROBE_FLAG`] is set: the guest's code runs.
pub const PROBE_OK: &str = "cofferdam-probe-ok";
