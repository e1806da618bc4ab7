//! The background process that owns one sandbox for the OCI command.
//!
//! ```text
//!  cofferdam create ──Launch + stdio──▶ driver ──▶ cofferdam-fs, VMM ──▶ guest
//!        │ spawns      ◀──Created──────   │ ▲
//!        ▼             ───Adopted──────▶  │ │ control.sock: start, kill, exec, state …
//!      proxy  ◀──────exit status──────────┘ └── other commands
//! ```
//!
//! The driver ends with its container: it shuts the guest down, writes the exit status into the container's record,
//! tells the proxy and is gone. Its death takes VMM and file server with it (parent-death signals), the proxy sees its
//! socket close.

mod adopted;
mod connection;
mod launch;
mod oci_state;

pub use launch::main;
pub use oci_state::{OciState, oci_state};
