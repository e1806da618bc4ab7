//! The commands that people use without an engine, one operation per file.

pub mod check;
pub mod images;
pub mod load;
pub mod logs;
pub mod mode;
pub mod network;
pub mod ps;
pub mod pull;
pub mod rm;
pub mod rmi;
pub mod run;
pub mod stop;
pub mod storage;
pub mod template;

mod age;
mod progress;
pub mod quantity;
mod removal;
mod seccomp;
mod select;
mod spec;
mod tree;
mod user;
mod volume;

use std::path::PathBuf;

use anyhow::Result;

pub use user::Identity;

/// A user by name or number, as the root file system of these folders (the topmost first) knows it.
pub fn resolve_user(text: &str, layers: &[PathBuf]) -> Result<Identity> {
    user::resolve(text, &tree::Tree::open(layers)?)
}
