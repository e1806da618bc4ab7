//! Users, rights and what confines them.

use std::fs;

use cri::v1::security_profile::ProfileType;
use cri::v1::{Capability, ContainerConfig, Int64Value, SecurityProfile};

use crate::lab::Lab;
use crate::pod::{pod_security, script, security};

fn with(kind: ProfileType, reference: &str) -> SecurityProfile {
    SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: reference.to_owned(),
    }
}

pub fn user_and_groups(lab: &Lab) {
    let pod = lab.pod();
    let mut config = script(
        "main",
        "id -u; id -g; id -G; touch /root/x 2>/dev/null || echo no",
    );
    let own = security(&mut config);
    own.run_as_user = Some(Int64Value { value: 1234 });
    own.run_as_group = Some(Int64Value { value: 5678 });
    own.supplemental_groups = vec![33, 44];
    let (code, seen) = pod.finish(config);
    let lines: Vec<_> = seen.lines().collect();
    assert_eq!(
        (code, lines[0], lines[1], lines[3]),
        (0, "1234", "5678", "no")
    );
    let mut groups: Vec<_> = lines[2].split(' ').collect();
    groups.sort_unstable();
    assert_eq!(groups, ["33", "44", "5678"]);
}

pub fn user_by_name(lab: &Lab) {
    let pod = lab.pod();
    let mut config = script("main", "id -u; id -g; echo $HOME");
    security(&mut config).run_as_username = "user".to_owned();
    let done = pod.finish(config);
    assert_eq!(done, (0, "1000\n1000\n/home/user\n".to_owned()));
    let mut config = script("nobody", "true");
    security(&mut config).run_as_username = "no-such-user".to_owned();
    let refused = pod.create(config).expect_err("no such user");
    assert!(refused.message().contains("user"), "{refused}");
}

/// `CapEff`, as a number.
fn effective(pod: &crate::pod::Pod, mut config: ContainerConfig) -> u64 {
    config.command = ["sh", "-c", "grep CapEff /proc/self/status"]
        .map(str::to_owned)
        .to_vec();
    let (code, seen) = pod.finish(config);
    assert_eq!(code, 0);
    let digits = seen.split_whitespace().nth(1).expect("rights");
    u64::from_str_radix(digits, 16).expect("rights")
}

const CHOWN: u64 = 1;
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const SYS_ADMIN: u64 = 1 << 21;

pub fn capabilities(lab: &Lab) {
    let pod = lab.pod();
    let usual = effective(&pod, script("usual", ""));
    assert_eq!(usual, 0xa804_25fb, "containerd's fourteen");
    let mut config = script("changed", "");
    security(&mut config).capabilities = Some(Capability {
        add_capabilities: vec!["NET_ADMIN".to_owned()],
        drop_capabilities: vec!["CHOWN".to_owned()],
        ..Capability::default()
    });
    assert_eq!(effective(&pod, config), (usual | NET_ADMIN) & !CHOWN);
}

pub fn dropped_capabilities(lab: &Lab) {
    let pod = lab.pod();
    let mut config = script("none", "");
    security(&mut config).capabilities = Some(Capability {
        drop_capabilities: vec!["ALL".to_owned()],
        ..Capability::default()
    });
    assert_eq!(effective(&pod, config), 0);
    let mut config = script("one", "");
    security(&mut config).capabilities = Some(Capability {
        add_capabilities: vec!["NET_RAW".to_owned()],
        drop_capabilities: vec!["ALL".to_owned()],
        ..Capability::default()
    });
    assert_eq!(effective(&pod, config), NET_RAW);
}

pub fn default_filter(lab: &Lab) {
    let pod = lab.pod();
    let mut config = script("main", "sleep 1000");
    security(&mut config).seccomp = Some(with(ProfileType::RuntimeDefault, ""));
    let container = pod.run(config);
    let look = "grep Seccomp: /proc/1/status /proc/self/status | cut -f 2; unshare -U true 2>/dev/null || echo no";
    // `exec` is confined as the container is.
    assert_eq!(container.exec(look), (0, "2\n2\nno\n".to_owned()));
}

pub fn filter_of_a_file(lab: &Lab) {
    let profile = lab.folder().join("profile.json");
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}"#;
    fs::write(&profile, text).expect("a profile");
    let pod = lab.pod();
    let mut config = script(
        "main",
        "mkdir /tmp/x 2>/dev/null || echo no; touch /tmp/y && echo yes",
    );
    let path = profile.to_str().expect("a path");
    security(&mut config).seccomp = Some(with(ProfileType::Localhost, path));
    assert_eq!(pod.finish(config), (0, "no\nyes\n".to_owned()));
}

pub fn no_filter(lab: &Lab) {
    let pod = lab.pod();
    let mut config = script("main", "grep Seccomp: /proc/self/status | cut -f 2");
    security(&mut config).seccomp = Some(with(ProfileType::Unconfined, ""));
    assert_eq!(pod.finish(config), (0, "0\n".to_owned()));
}

pub fn read_only_root(lab: &Lab) {
    let pod = lab.pod();
    let mut config = script(
        "main",
        "touch /x 2>/dev/null || echo no; touch /dev/shm/x && echo yes",
    );
    security(&mut config).readonly_rootfs = true;
    assert_eq!(pod.finish(config), (0, "no\nyes\n".to_owned()));
}

pub fn no_new_privileges(lab: &Lab) {
    let pod = lab.pod();
    for (name, wanted) in [("with", true), ("without", false)] {
        let mut config = script(name, "grep NoNewPrivs /proc/self/status | cut -f 2");
        security(&mut config).no_new_privs = wanted;
        assert_eq!(pod.finish(config), (0, format!("{}\n", u8::from(wanted))));
    }
}

pub fn masked_and_read_only_paths(lab: &Lab) {
    let pod = lab.pod();
    let mut config = script(
        "main",
        "cat /etc/passwd | wc -c; ls /home | wc -l; touch /var/tmp/x 2>/dev/null || echo no; cat /proc/kcore | head -c 1 | wc -c",
    );
    let own = security(&mut config);
    own.masked_paths = vec![
        "/etc/passwd".to_owned(),
        "/home".to_owned(),
        "/proc/kcore".to_owned(),
    ];
    own.readonly_paths = vec!["/var/tmp".to_owned()];
    assert_eq!(pod.finish(config), (0, "0\n0\nno\n0\n".to_owned()));
}

pub fn privileged(lab: &Lab) {
    let mut config = lab.pod_config("pod");
    pod_security(&mut config).privileged = true;
    let pod = lab.run(config);
    let mut config = script(
        "main",
        "grep Seccomp: /proc/self/status | cut -f 2; mount -t tmpfs none /mnt 2>/dev/null || mkdir /mnt && mount -t tmpfs none /mnt && echo mounted; touch /proc/sys/kernel/domainname && echo writable; uname -r > /mnt/x && cat /mnt/x",
    );
    security(&mut config).privileged = true;
    let mut rights = config.clone();
    rights.metadata.get_or_insert_default().name = "rights".to_owned();
    rights.log_path = "rights.log".to_owned();
    let (code, seen) = pod.finish(config);
    let lines: Vec<_> = seen.lines().collect();
    assert_eq!(
        (code, &lines[..3]),
        (0, &["0", "mounted", "writable"][..]),
        "{seen}"
    );
    let own = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel");
    assert_eq!(
        lines[3] == own.trim(),
        !lab.is_machine(),
        "whose kernel: {seen}"
    );
    assert_ne!(effective(&pod, rights) & SYS_ADMIN, 0);
}

/// Kubelet never asks for that, and the engine refuses it.
pub fn privileged_in_an_ordinary_pod(lab: &Lab) {
    let pod = lab.pod();
    let mut config = script("main", "true");
    security(&mut config).privileged = true;
    let refused = pod.create(config).expect_err("the pod is not privileged");
    assert!(refused.message().contains("privileged"), "{refused}");
}
