//! How commands reach the driver of a sandbox.

mod channel;
mod message;

pub use channel::{AsyncChannel, Channel, ChannelError};
pub use message::{
    Adopted, DeviceCounters, Failure, FailureKind, HostStdio, Launch, Launched, MachineCounters,
    ProcessEntry, ProcessEvent, ProcessRequest, Reply, Request,
};

/// Name of the driver's socket in the container's state folder.
pub const SOCKET: &str = "control.sock";
