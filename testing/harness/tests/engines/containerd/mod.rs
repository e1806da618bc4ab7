//! containerd with its shim for runc.

mod cases;
mod engine;
