//! podman with conmon.

mod accounting;
mod engine;
mod isolation;
mod lifecycle;
mod pods;
mod stdio;
