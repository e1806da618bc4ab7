//! All cases, by group.

mod commands;
mod exec;
mod hooks;
mod lifecycle;
mod limits;
mod load;
mod malformed;
mod mounts;
mod rootfs;
mod security;
mod signals;
mod state;
mod stdio;
mod tty;
mod users;

use crate::case::Case;

/// Every case of every group.
pub fn all() -> impl Iterator<Item = Case> {
    [
        lifecycle::CASES,
        state::CASES,
        stdio::CASES,
        tty::CASES,
        exec::CASES,
        signals::CASES,
        hooks::CASES,
        users::CASES,
        security::CASES,
        mounts::CASES,
        rootfs::CASES,
        limits::CASES,
        commands::CASES,
        malformed::CASES,
        load::CASES,
    ]
    .into_iter()
    .flatten()
    .copied()
}
