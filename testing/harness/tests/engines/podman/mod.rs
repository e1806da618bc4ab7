//! podman with conmon.

mod engine;
mod isolation;
mod lifecycle;
mod network;
mod stdio;
