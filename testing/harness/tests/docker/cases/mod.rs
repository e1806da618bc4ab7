//! What Docker can do, one function each.

mod exec;
mod files;
mod host;
mod isolation;
mod lifecycle;
mod limits;
mod network;
mod networks;
mod run;
mod security;
mod stdio;

use std::fmt::Debug;

use crate::docker::Docker;

/// What came of a case.
#[derive(Debug)]
pub enum Verdict {
    /// It ran; this has to be the same with every runtime.
    Observed(String),
    /// The runtime refused it as it should.
    Refused,
    /// This machine cannot show it.
    Skipped(&'static str),
}

/// A case.
pub type Case = fn(&Docker) -> Verdict;

fn observed(value: impl Debug) -> Verdict {
    Verdict::Observed(format!("{value:#?}"))
}

/// What was seen, which has to be this whoever runs it.
fn exactly<T: Debug + PartialEq>(seen: T, wanted: T) -> Verdict {
    assert_eq!(seen, wanted);
    observed(seen)
}

macro_rules! cases {
    ($($module:ident: $($name:ident),+ $(,)?;)+) => {
        &[$($((concat!(stringify!($module), "::", stringify!($name)), $module::$name as Case),)+)+]
    };
}

/// All of them.
pub const CASES: &[(&str, Case)] = cases! {
    run: output_and_exit_code, command_that_cannot_run, signal_that_ends_it, removed_at_its_end, init, user, workdir,
        environment, entrypoint, another_distribution, commit_keeps_changes;
    lifecycle: create_and_start, stop, stop_kills_after_its_time, stop_signal_and_time_of_the_container, restart,
        kill_with_a_signal, wait, pause_and_unpause, removal_of_a_running_one, rename_port_and_inspect, restart_policy,
        health_check, events, top;
    exec: output_and_exit_code, command_that_cannot_run, user_folder_and_environment, stdin, in_the_background,
        many_times, confined_as_the_container_is, ends_with_the_container;
    stdio: stdin_from_a_pipe, much_output, terminal_and_its_size, terminal_of_an_exec, interrupt_from_the_terminal,
        detach_and_attach, attach_passes_signals_and_the_exit_code, logs, logs_that_follow, attached_to_some_streams;
    files: bound_folder, read_only_folder, single_files, changes_are_seen_on_both_sides, named_volumes, mount_option,
        volumes_from_another, temporary_file_systems, shared_memory, read_only_root, copy_in_and_out,
        differences_to_the_image, files_of_the_engine;
    security: defaults, capabilities, no_new_privileges, seccomp_unconfined, seccomp_profile_of_a_file,
        apparmor_unconfined, masked_and_read_only_paths, unmasked_paths, open_file_limits, sysctls,
        devices_that_every_container_has, device_by_another_name, device_rules, privileged, privileged_exec,
        user_namespace_of_the_engine;
    limits: memory, out_of_memory, oom_killed_is_told, child_out_of_memory, further_memory_options, processors, processor_sets, processes,
        update, statistics, out_of_memory_killer_switched_off, throttled_devices;
    host: network_behind_the_pid, control_groups_behind_the_pid, oom_score_behind_the_pid;
    network: default_bridge, outside, published_ports, published_datagrams, no_network, servers_for_names,
        network_of_another_container, kept_over_a_restart;
    networks: names_of_both_kinds, names_of_each_other, names_by_connection, names_of_the_world, several_at_the_start,
        connected_while_it_runs, chosen_addresses, both_families, internal, linked;
    isolation: network_of_the_host, processes_of_the_host, ipc_of_the_host, hostname_of_the_host,
        processes_of_another_container, ipc_of_another_container, device_of_the_host, disk_of_the_host,
        socket_of_the_host, kernel_interfaces_of_the_host, control_groups_of_the_host, kernel_is_another_one,
        beside_each_other;
};
