//! podman with conmon.

mod engine;
mod isolation;
mod lifecycle;
mod pods;
mod stdio;
