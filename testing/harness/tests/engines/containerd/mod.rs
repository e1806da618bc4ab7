//! containerd with its shim for runc, and with ours.

mod accounting;
mod calls;
mod cases;
mod client;
mod codes;
mod crio;
mod engine;
mod faults;
mod idle;
mod network;
mod phases;
mod shim;
mod soon;
