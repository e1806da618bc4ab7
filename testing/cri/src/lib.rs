//! Kubernetes' container runtime interface as kubelet speaks it: calls, and the streams behind `kubectl exec`, `attach`
//! and `port-forward`.
//!
//! Calls block: tests are threads. Messages are those of `k8s-cri`, unchanged.

mod client;
mod log;
mod pod;
mod stream;

pub use client::Client;
pub use k8s_cri::v1;
pub use log::{Line, parse};
pub use pod::Pod;
pub use stream::{Stream, StreamError};
