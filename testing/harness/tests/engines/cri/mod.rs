//! Kubernetes' container runtime interface, served by containerd, with a runtime class for runc and one for ours.

mod engine;
mod faults;
mod image;
mod pods;
