//! podman with conmon.

mod accounting;
mod engine;
mod isolation;
mod lifecycle;
mod network;
mod pods;
mod stdio;
