//! The one program of the guest: PID 1, agent and container helper.

fn main() {}
