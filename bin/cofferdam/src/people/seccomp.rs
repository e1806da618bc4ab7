//! The system calls that a container may use unless it gets more capabilities.
//!
//! An allow list in the manner of docker's default profile, for containers with the default capabilities: what changes
//! the guest's kernel, clock, modules, mounts or namespaces is not in it, and the answer to the rest is `EPERM`. The
//! virtual machine is the wall to the host; this one keeps a container from its guest's kernel.

use serde_json::{Value, json};

/// `EPERM`.
const NOT_PERMITTED: u32 = 1;
/// `ENOSYS`: programs fall back to what an older kernel had.
const NOT_IMPLEMENTED: u32 = 38;
/// The `CLONE_NEW*` flags.
const NAMESPACES: u64 = 0x7e02_0000;
/// `AF_VSOCK`: the way from a guest to its host.
const VSOCK: u64 = 40;

/// Allowed with any arguments.
const ALLOWED: &str = include_str!("syscalls.txt");

/// The execution domains that programs ask for: Linux, 32 bits of it, with and without randomized addresses, and asking
/// which.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

fn allowed() -> Vec<&'static str> {
    let lines = ALLOWED.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(str::split_ascii_whitespace).collect()
}

/// The profile as runtime-spec's `linux.seccomp`. `vsock`: programs may talk to those of the host.
pub fn profile(vsock: bool) -> Value {
    let sockets = match vsock {
        true => json!({ "names": ["socket"], "action": "SCMP_ACT_ALLOW" }),
        false => json!({ "names": ["socket"], "action": "SCMP_ACT_ALLOW",
                "args": [{ "index": 0, "value": VSOCK, "op": "SCMP_CMP_NE" }] }),
    };
    let mut rules = vec![
        json!({ "names": allowed(), "action": "SCMP_ACT_ALLOW" }),
        sockets,
        json!({ "names": ["clone"], "action": "SCMP_ACT_ALLOW",
                "args": [{ "index": 0, "value": NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }] }),
        // Its flags are behind a pointer, where no filter can look; libc falls back to `clone`.
        json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": NOT_IMPLEMENTED }),
    ];
    for personality in PERSONALITIES {
        rules.push(
            json!({ "names": ["personality"], "action": "SCMP_ACT_ALLOW",
                           "args": [{ "index": 0, "value": personality, "op": "SCMP_CMP_EQ" }] }),
        );
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": NOT_PERMITTED,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": rules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxSeccomp;
    use std::collections::HashSet;

    /// What changes the guest for others.
    const NEVER: &str = "acct add_key bpf clock_settime clone clone3 delete_module finit_module fsmount fsopen init_module \
        io_uring_setup kexec_file_load kexec_load keyctl mount mount_setattr move_mount open_by_handle_at \
        open_tree perf_event_open pivot_root quotactl reboot request_key setns settimeofday socket swapoff \
        swapon syslog umount umount2 unshare userfaultfd vhangup";

    #[test]
    fn it_is_a_profile_without_what_changes_the_kernel() {
        let _profile: LinuxSeccomp = serde_json::from_value(profile(true)).unwrap();
        let usual = profile(false);
        assert_eq!(usual["syscalls"][1]["args"][0]["value"], VSOCK);
        let _profile: LinuxSeccomp = serde_json::from_value(usual).unwrap();
        let allowed = allowed();
        let set: HashSet<_> = allowed.iter().copied().collect();
        assert_eq!(set.len(), allowed.len(), "a name stands twice");
        for never in NEVER.split_ascii_whitespace() {
            assert!(!set.contains(never), "{never}");
        }
    }
}
