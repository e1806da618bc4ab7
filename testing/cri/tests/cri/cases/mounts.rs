//! Volumes, which kubelet lays out on the host.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use cri::v1::{ContainerConfig, Mount};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::lab::Lab;
use crate::pod::script;

fn bound(config: &mut ContainerConfig, host: &Path, container: &str, readonly: bool) {
    config.mounts.push(Mount {
        container_path: container.to_owned(),
        host_path: host.to_str().expect("a path that is text").to_owned(),
        readonly,
        ..Mount::default()
    });
}

pub fn folder(lab: &Lab) {
    let host = lab.folder().join("volume");
    fs::create_dir_all(host.join("below")).expect("a folder");
    fs::write(host.join("below/file"), "from the host\n").expect("a file");
    let pod = lab.pod();
    let mut config = script(
        "main",
        "cat /data/below/file; echo inside > /data/new; mv /data/new /data/named; rm /data/below/file; ls /data",
    );
    bound(&mut config, &host, "/data", false);
    let done = pod.finish(config);
    assert_eq!(done, (0, "from the host\nbelow\nnamed\n".to_owned()));
    assert_eq!(
        fs::read_to_string(host.join("named")).expect("a file"),
        "inside\n"
    );
    assert!(!host.join("below/file").exists());
}

/// `/etc/hosts` and the message of termination are such.
pub fn single_file(lab: &Lab) {
    let hosts = lab.folder().join("hosts");
    let message = lab.folder().join("message");
    fs::write(&hosts, "192.0.2.9 somewhere\n").expect("a file");
    fs::write(&message, "").expect("a file");
    let pod = lab.pod();
    let mut config = script(
        "main",
        "cat /etc/hosts; echo last words > /dev/termination-log; echo x 2>/dev/null > /etc/hosts || echo no",
    );
    bound(&mut config, &hosts, "/etc/hosts", true);
    bound(&mut config, &message, "/dev/termination-log", false);
    assert_eq!(
        pod.finish(config),
        (0, "192.0.2.9 somewhere\nno\n".to_owned())
    );
    assert_eq!(
        fs::read_to_string(&message).expect("a file"),
        "last words\n"
    );
    assert_eq!(
        fs::read_to_string(&hosts).expect("a file"),
        "192.0.2.9 somewhere\n"
    );
}

pub fn read_only_folder(lab: &Lab) {
    let host = lab.folder().join("volume");
    fs::create_dir(&host).expect("a folder");
    fs::write(host.join("file"), "kept\n").expect("a file");
    let pod = lab.pod();
    let mut config = script(
        "main",
        "cat /data/file; touch /data/new 2>/dev/null || echo no; rm /data/file 2>/dev/null || echo no",
    );
    bound(&mut config, &host, "/data", true);
    assert_eq!(pod.finish(config), (0, "kept\nno\nno\n".to_owned()));
    assert!(host.join("file").exists() && !host.join("new").exists());
}

pub fn shared_by_containers(lab: &Lab) {
    let host = lab.folder().join("volume");
    fs::create_dir(&host).expect("a folder");
    let pod = lab.pod();
    let mut reader = script(
        "reader",
        "echo ready > /data/ready; while ! test -s /data/file; do sleep 0.1; done; cat /data/file",
    );
    bound(&mut reader, &host, "/data", false);
    let reader = pod.run(reader);
    let mut writer = script(
        "writer",
        "while ! test -s /other/ready; do sleep 0.1; done; echo a word > /other/.part; mv /other/.part /other/file",
    );
    bound(&mut writer, &host, "/other", false);
    assert_eq!(pod.finish(writer).0, 0);
    assert_eq!(reader.wait().exit_code, 0);
    assert_eq!(reader.stdout(), "a word\n");
}

/// The engine makes it.
pub fn missing_folder(lab: &Lab) {
    let host = lab.folder().join("not/there/yet");
    let pod = lab.pod();
    let mut config = script("main", "touch /data/file && echo yes");
    bound(&mut config, &host, "/data", false);
    assert_eq!(pod.finish(config), (0, "yes\n".to_owned()));
    assert!(host.join("file").exists());
}

/// How kubelet changes files of a ConfigMap: a link to another folder, in one step.
pub fn replaced_files(lab: &Lab) {
    let host = lab.folder().join("volume");
    for (name, text) in [("first", "old\n"), ("second", "new\n")] {
        fs::create_dir_all(host.join(name)).expect("a folder");
        fs::write(host.join(name).join("key"), text).expect("a file");
    }
    symlink("first", host.join("..data")).expect("a link");
    symlink("..data/key", host.join("key")).expect("a link");
    let pod = lab.pod();
    let mut config = script(
        "main",
        "cat /config/key; while ! grep -q new /config/key; do sleep 0.1; done; cat /config/key",
    );
    bound(&mut config, &host, "/config", true);
    let container = pod.run(config);
    container.wait_for("old");
    symlink("second", host.join("..next")).expect("a link");
    fs::rename(host.join("..next"), host.join("..data")).expect("a rename");
    assert_eq!(container.wait().exit_code, 0);
    assert_eq!(container.stdout(), "old\nnew\n");
}

/// An `emptyDir` of medium `Memory`: a mount that kubelet makes.
pub fn memory_backed(lab: &Lab) {
    let host = lab.folder().join("memory");
    fs::create_dir(&host).expect("a folder");
    mount("none", &host, "tmpfs", MountFlags::NODEV, None).expect("a file system");
    let pod = lab.pod();
    let mut config = script("main", "echo secret > /data/file; cat /data/file");
    bound(&mut config, &host, "/data", false);
    let done = pod.finish(config);
    let seen = fs::read_to_string(host.join("file"));
    drop(pod);
    unmount(&host, UnmountFlags::empty()).expect("nobody uses it any more");
    assert_eq!(done, (0, "secret\n".to_owned()));
    assert_eq!(seen.expect("a file"), "secret\n");
}
