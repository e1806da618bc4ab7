//! containerd with its shim for runc, and with ours.

mod accounting;
mod calls;
mod cases;
mod client;
mod crio;
mod engine;
mod faults;
mod network;
mod shim;
