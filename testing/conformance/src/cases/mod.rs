//! All cases, by group.

mod commands;
mod exec;
mod exec_process;
mod filesystems;
mod global;
mod hooks;
mod lifecycle;
mod limits;
mod load;
mod malformed;
mod mounts;
mod rootfs;
mod seccomp;
mod security;
mod signals;
mod state;
mod stdio;
mod tty;
mod unrunnable;
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
        exec_process::CASES,
        signals::CASES,
        hooks::CASES,
        users::CASES,
        security::CASES,
        seccomp::CASES,
        mounts::CASES,
        filesystems::CASES,
        rootfs::CASES,
        limits::CASES,
        commands::CASES,
        global::CASES,
        malformed::CASES,
        unrunnable::CASES,
        load::CASES,
    ]
    .into_iter()
    .flatten()
    .copied()
}
