//! What containers of a pod share, and what they do not.

use std::collections::HashMap;

use cri::v1::{DnsConfig, NamespaceMode, NamespaceOption};

use crate::lab::Lab;
use crate::pod::{command, pod_security, script, security};

pub fn hostname(lab: &Lab) {
    let mut config = lab.pod_config("pod");
    config.hostname = "a-pods-own-name".to_owned();
    let pod = lab.run(config);
    let script = script("main", "hostname; cat /etc/hostname; echo $HOSTNAME");
    let name = "a-pods-own-name\n".repeat(3);
    assert_eq!(pod.finish(script), (0, name));
}

pub fn sysctls(lab: &Lab) {
    let mut config = lab.pod_config("pod");
    config.linux.get_or_insert_default().sysctls = HashMap::from([
        ("kernel.msgmax".to_owned(), "12345".to_owned()),
        (
            "net.ipv4.ip_unprivileged_port_start".to_owned(),
            "77".to_owned(),
        ),
    ]);
    let pod = lab.run(config);
    let read = "cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_unprivileged_port_start";
    for name in ["one", "two"] {
        assert_eq!(
            pod.finish(script(name, read)),
            (0, "12345\n77\n".to_owned())
        );
    }
}

pub fn name_service_files(lab: &Lab) {
    let mut config = lab.pod_config("pod");
    config.dns_config = Some(DnsConfig {
        servers: vec!["192.0.2.53".to_owned(), "192.0.2.54".to_owned()],
        searches: vec!["pods.example".to_owned()],
        options: vec!["ndots:5".to_owned()],
    });
    let pod = lab.run(config);
    let (code, text) = pod.finish(script("main", "cat /etc/resolv.conf"));
    assert_eq!(code, 0);
    for line in [
        "search pods.example",
        "nameserver 192.0.2.53",
        "nameserver 192.0.2.54",
        "options ndots:5",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
}

pub fn shared_ipc(lab: &Lab) {
    let pod = lab.pod();
    let one = pod.run(command("one", &["sleep", "1000"]));
    let two = pod.run(command("two", &["sleep", "1000"]));
    let namespace = "readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts";
    assert_eq!(one.exec(namespace), two.exec(namespace));
    assert_eq!(one.exec("echo word > /dev/shm/file").0, 0);
    assert_eq!(two.exec("cat /dev/shm/file"), (0, "word\n".to_owned()));
    let (_, kind) = two.exec("grep ' /dev/shm ' /proc/mounts | cut -d ' ' -f 3");
    assert_eq!(kind, "tmpfs\n");
}

pub fn own_processes(lab: &Lab) {
    let pod = lab.pod();
    let one = pod.run(command("one", &["sleep", "1111"]));
    let two = pod.run(command("two", &["sleep", "2222"]));
    let look = "readlink /proc/self/ns/pid; cat /proc/1/cmdline | tr '\\0' ' '; ps -o args | grep -c '[s]leep'";
    let (first, second) = (one.exec(look).1, two.exec(look).1);
    assert!(first.ends_with("sleep 1111 1\n"), "{first}");
    assert!(second.ends_with("sleep 2222 1\n"), "{second}");
    assert_ne!(first.lines().next(), second.lines().next());
}

/// `shareProcessNamespace: true`.
pub fn shared_processes(lab: &Lab) {
    let pod_wide = NamespaceOption {
        pid: NamespaceMode::Pod.into(),
        ..NamespaceOption::default()
    };
    let mut config = lab.pod_config("pod");
    pod_security(&mut config).namespace_options = Some(pod_wide.clone());
    let pod = lab.run(config);
    let run = |name: &str, seconds: &str| {
        let mut config = command(name, &["sleep", seconds]);
        security(&mut config).namespace_options = Some(pod_wide.clone());
        pod.run(config)
    };
    let one = run("one", "1111");
    let two = run("two", "2222");
    let look = "ps -o args | grep '[s]leep [12]'";
    for container in [&one, &two] {
        let (_, seen) = container.exec(look);
        assert!(
            seen.contains("sleep 1111") && seen.contains("sleep 2222"),
            "{seen}"
        );
        let (_, first) = container.exec("cat /proc/1/cmdline");
        assert!(
            !first.contains("1111") && !first.contains("2222"),
            "{first}"
        );
    }
    // One may signal the other, and see its files.
    let (code, _) = one.exec("kill -9 $(ps -o pid,args | awk '/[s]leep 2222/ { print $1 }')");
    assert_eq!(code, 0);
    assert_eq!(two.wait().exit_code, 137);
}

pub fn network_of_the_host(lab: &Lab) {
    of_the_host(lab, "network", |options| {
        options.network = NamespaceMode::Node.into();
    });
}

pub fn processes_of_the_host(lab: &Lab) {
    of_the_host(lab, "pid", |options| {
        options.pid = NamespaceMode::Node.into();
    });
}

pub fn ipc_of_the_host(lab: &Lab) {
    of_the_host(lab, "ipc", |options| {
        options.ipc = NamespaceMode::Node.into()
    });
}

/// A machine of its own has none of the host's namespaces: that has to be said, before anything starts.
fn of_the_host(lab: &Lab, word: &str, change: fn(&mut NamespaceOption)) {
    let mut config = lab.pod_config("pod");
    // Kubelet leaves it to the node's.
    if word == "network" {
        config.hostname.clear();
    }
    change(
        pod_security(&mut config)
            .namespace_options
            .get_or_insert_default(),
    );
    let options = pod_security(&mut config).namespace_options.clone();
    let made = lab.try_run(config);
    if lab.is_machine() {
        let refused = made.expect_err("a machine cannot have that");
        let text = refused.message().to_lowercase();
        let named = match word {
            "network" => text.contains("the host's network") && text.contains("hostport"),
            _ => text.contains(word) && text.contains("host's") && text.contains("cannot share"),
        };
        assert!(named, "{text}");
        return;
    }
    let pod = made.expect("a pod");
    let kind = if word == "network" { "net" } else { word };
    let mut config = command("main", &["readlink", &format!("/proc/self/ns/{kind}")]);
    security(&mut config).namespace_options = options;
    let own = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace");
    assert_eq!(pod.finish(config), (0, format!("{}\n", own.display())));
}
