//! The image store through its public interface.

mod fixture;
mod registry;
mod sources;
mod store;
