//! What kubelet asks of a pod, one function each. Each asserts what it wants, so that runc shows that it can be had.

mod containers;
mod events;
mod exec;
mod faults;
mod logs;
mod mounts;
mod namespaces;
mod network;
mod pods;
mod resources;
mod security;
mod service;
mod statistics;
mod streams;

use crate::lab::Lab;

/// A case.
pub type Case = fn(&Lab);

macro_rules! cases {
    ($($module:ident: $($name:ident),+ $(,)?;)+) => {
        &[$($((concat!(stringify!($module), "::", stringify!($name)), $module::$name as Case),)+)+]
    };
}

/// All of them.
pub const CASES: &[(&str, Case)] = cases! {
    service: version, status, images, image_file_system, configuration, unknown_handler;
    pods: status_and_list, without_containers, stopped_and_removed_twice, stopped_with_running_containers,
        removed_while_running, init_then_main, restarted_container, container_added_later, in_parallel,
        many_containers, one_kernel;
    namespaces: hostname, sysctls, name_service_files, shared_ipc, own_processes, shared_processes,
        network_of_the_host, processes_of_the_host, ipc_of_the_host;
    network: shared_by_containers, reached_from_outside, between_pods, both_families, port_of_the_host, loopback;
    containers: exit_codes, command_that_is_missing, killed_for_memory, stopped_in_time, stopped_by_force,
        stopped_without_time, stop_signal_of_the_image, list_and_status, removed_while_running, never_started,
        settings_of_the_image, environment_and_folder, terminal, stdin_once;
    exec: output_and_exit_code, time_limit, command_that_is_missing, much_output, as_the_user_of_the_container,
        in_a_stopped_container, at_once;
    streams: exec_with_output, exec_with_stdin, exec_with_a_terminal, attach_to_output, attach_to_stdin,
        forwarded_port, forwarded_port_without_a_listener, connections_to_loopback;
    security: user_and_groups, user_by_name, capabilities, dropped_capabilities, default_filter, filter_of_a_file,
        no_filter, read_only_root, no_new_privileges, masked_and_read_only_paths, privileged,
        privileged_in_an_ordinary_pod;
    mounts: folder, single_file, read_only_folder, shared_by_containers, missing_folder, replaced_files,
        memory_backed;
    resources: memory, processors, updated;
    statistics: of_a_container, of_all_containers, of_a_pod;
    logs: format, long_lines, last_line_without_an_end, reopened;
    events: of_a_container;
    faults: engine_killed, ended_without_the_engine, shim_killed;
};
