//! The background process that owns one sandbox for the OCI command.
//!
//! ```text
//!  cofferdam create ──Launch + stdio──▶ driver ──▶ cofferdam-fs, VMM ──▶ guest
//!        │ spawns      ◀──Created──────   │ ▲
//!        ▼             ───Adopted──────▶  │ │ control.sock: start, kill, exec, state …
//!      proxy  ◀──────exit status──────────┘ └── other commands
//! ```
//!
//! When a container has ended the driver writes the exit status into its record and tells its proxy. It ends with the
//! last container of the sandbox: before that one's end is told, it shuts the guest down. Its death takes VMM and file
//! server with it (parent-death signals), and all proxies see their sockets close.
//!
//! Further containers of the sandbox (of a pod) are made by `cofferdam create` as the first one, but their launch goes
//! over the control socket of that one; each has a control socket in its own folder then, a record and a proxy.

mod adopted;
mod connection;
mod join;
mod launch;
mod members;
mod oci_state;

pub use launch::main;
pub use oci_state::{OciState, oci_state};
