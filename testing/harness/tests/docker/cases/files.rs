//! Volumes, copies and what a container's file system is.

use std::fs;
use std::path::Path;

use super::{Verdict, observed};
use crate::docker::Docker;

fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}

pub fn bound_folder(docker: &Docker) -> Verdict {
    let folder = docker.folder();
    fs::write(folder.join("given"), "from the host\n").expect("a file");
    let bind = format!("{}:/v", text(&folder));
    let script = "cat /v/given; echo from inside > /v/made; chown 1000:100 /v/made; chmod 640 /v/made; mkdir /v/d; ln -s made /v/l; mv /v/given /v/moved";
    let done = docker.try_sh(&["-v", &bind], script);
    let made = fs::read_to_string(folder.join("l")).expect("a file");
    let stat = std::process::Command::new("stat")
        .args(["-c", "%u %g %a"])
        .arg(folder.join("made"))
        .output()
        .expect("stat");
    let names: std::collections::BTreeSet<_> = fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    observed((done.code, done.stdout, made, stat.stdout, names))
}

pub fn read_only_folder(docker: &Docker) -> Verdict {
    let folder = docker.folder();
    fs::write(folder.join("given"), "from the host\n").expect("a file");
    let bind = format!("{}:/v:ro", text(&folder));
    let done = docker.try_sh(
        &["-v", &bind],
        "cat /v/given; touch /v/made; echo x > /v/given; rm /v/given",
    );
    assert_eq!(
        done.stderr.matches("Read-only file system").count(),
        3,
        "{done:?}"
    );
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 1);
    observed((done.code, done.stdout))
}

pub fn single_files(docker: &Docker) -> Verdict {
    let (rw, ro) = (docker.folder().join("rw"), docker.folder().join("ro"));
    fs::write(&rw, "before\n").expect("a file");
    fs::write(&ro, "kept\n").expect("a file");
    let (bind_rw, bind_ro) = (
        format!("{}:/etc/rw", text(&rw)),
        format!("{}:/etc/ro:ro", text(&ro)),
    );
    let done = docker.try_sh(
        &["-v", &bind_rw, "-v", &bind_ro],
        "cat /etc/rw /etc/ro; echo after > /etc/rw; echo x > /etc/ro",
    );
    observed((
        done.code,
        done.stdout,
        fs::read_to_string(rw).expect("a file"),
        fs::read_to_string(ro).expect("a file"),
    ))
}

pub fn changes_are_seen_on_both_sides(docker: &Docker) -> Verdict {
    let folder = docker.folder();
    let bind = format!("{}:/v", text(&folder));
    let name = docker.background(
        &["-v", &bind],
        &[
            "sh",
            "-c",
            "echo ready > /v/ready; while ! test -e /v/go; do sleep 0.1; done; cat /v/go",
        ],
    );
    assert!(
        harness::wait_until(crate::daemon::LIMIT, || folder.join("ready").exists()),
        "it is not seen on the host"
    );
    fs::write(folder.join("go.new"), "went\n").expect("a file");
    fs::rename(folder.join("go.new"), folder.join("go")).expect("a file");
    docker.ok(&["wait", &name]);
    observed(docker.ok(&["logs", &name]))
}

pub fn named_volumes(docker: &Docker) -> Verdict {
    let volume = docker.name("volume");
    let bind = format!("{volume}:/data");
    docker.sh(&["-v", &bind], "echo kept > /data/file");
    let kept = docker.sh(&["-v", &bind], "cat /data/file");
    // A new volume is given what the image has there.
    let filled = docker.name("filled");
    let bind = format!("{filled}:/etc");
    let content = docker.sh(&["-v", &bind], "cat /etc/passwd | head -1");
    docker.ok(&["volume", "rm", &volume, &filled]);
    observed((kept, content))
}

pub fn mount_option(docker: &Docker) -> Verdict {
    let folder = docker.folder();
    fs::write(folder.join("given"), "from the host\n").expect("a file");
    let volume = docker.name("volume");
    let bind = format!("type=bind,source={},target=/bound,readonly", text(&folder));
    let named = format!("type=volume,source={volume},target=/named");
    let options = [
        "--mount",
        &bind,
        "--mount",
        &named,
        "--mount",
        "type=tmpfs,target=/memory,tmpfs-size=1m",
    ];
    let script = "cat /bound/given; touch /bound/x; touch /named/x && echo written; grep ' /memory ' /proc/mounts | cut -d' ' -f3; df -k /memory | tail -1 | awk '{print $2}'";
    let done = docker.try_sh(&options, script);
    docker.ok(&["volume", "rm", &volume]);
    observed((done.code, done.stdout))
}

pub fn volumes_from_another(docker: &Docker) -> Verdict {
    let name = docker.name("source");
    docker.ok(&[
        "run",
        "--name",
        &name,
        "-v",
        "/shared",
        "busybox",
        "sh",
        "-c",
        "echo of the first > /shared/file",
    ]);
    observed(docker.sh(&["--volumes-from", &name], "cat /shared/file"))
}

pub fn temporary_file_systems(docker: &Docker) -> Verdict {
    let options = ["--tmpfs", "/small:size=64k,mode=1770", "--tmpfs", "/run:ro"];
    let script = "stat -c '%a' /small; df -k /small | tail -1 | awk '{print $2}'; dd if=/dev/zero of=/small/x bs=1k count=100 2>&1 | head -1; touch /run/x";
    let done = docker.try_sh(&options, script);
    assert!(done.stdout.contains("No space left"), "{done:?}");
    observed((done.code, done.stdout))
}

pub fn shared_memory(docker: &Docker) -> Verdict {
    let script = "df -k /dev/shm | tail -1 | awk '{print $2}'; grep ' /dev/shm ' /proc/mounts | cut -d' ' -f2-3; stat -c %a /dev/shm; echo x > /dev/shm/x && echo written";
    let seen = [
        docker.sh(&[], script),
        docker.sh(&["--shm-size", "32m"], script),
        docker.sh(&["--ipc", "private", "--shm-size", "1m"], script),
        docker.sh(
            &["--ipc", "none"],
            "grep -c ' /dev/shm ' /proc/mounts || true",
        ),
        docker.sh(&["--tmpfs", "/dev/shm:size=2m"], script),
    ];
    assert!(seen[1].starts_with("32768\n/dev/shm tmpfs\n"), "{seen:?}");
    if docker.runtime.is_ours() {
        // Only memory of the guest's own can be shared by its processes at memory's speed, and be limited with them.
        let full = docker.sh(
            &["--shm-size", "1m"],
            "grep ' /dev/shm ' /proc/mounts | cut -d' ' -f1",
        );
        assert!(
            !full.contains("virtiofs") && !full.contains("cofferdam"),
            "{full}"
        );
    }
    observed(seen)
}

pub fn read_only_root(docker: &Docker) -> Verdict {
    let done = docker.try_sh(
        &["--read-only", "--tmpfs", "/tmp"],
        "touch /tmp/x && echo tmp; touch /x /etc/x; echo x > /etc/passwd",
    );
    assert_eq!(
        done.stderr.matches("Read-only file system").count(),
        3,
        "{done:?}"
    );
    observed((done.code, done.stdout))
}

pub fn copy_in_and_out(docker: &Docker) -> Verdict {
    let folder = docker.folder();
    let (there, back) = (folder.join("there"), folder.join("back"));
    fs::write(&there, "from the host\n").expect("a file");
    let name = docker.background(&[], &["sleep", "1000"]);
    docker.ok(&["cp", text(&there), &format!("{name}:/tmp/copied")]);
    let inside = docker.ok(&["exec", &name, "cat", "/tmp/copied"]);
    docker.ok(&[
        "exec",
        &name,
        "sh",
        "-c",
        "mkdir /tmp/d; echo from inside > /tmp/d/file",
    ]);
    docker.ok(&["cp", &format!("{name}:/tmp/d/file"), text(&back)]);
    docker.ok(&["kill", &name]);
    docker.ok(&["cp", &format!("{name}:/tmp/d"), text(&folder.join("d"))]);
    observed((
        inside,
        fs::read_to_string(back).expect("a copy"),
        fs::read_to_string(folder.join("d/file")).expect("a copy"),
    ))
}

pub fn differences_to_the_image(docker: &Docker) -> Verdict {
    let name = docker.name("c");
    docker.ok(&[
        "run",
        "--name",
        &name,
        "busybox",
        "sh",
        "-c",
        "echo x > /added; rm /etc/group; mkdir /folder; echo y >> /etc/passwd",
    ]);
    let mut lines: Vec<_> = docker
        .ok(&["diff", &name])
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    observed(lines)
}

pub fn files_of_the_engine(docker: &Docker) -> Verdict {
    let options = [
        "--hostname",
        "named",
        "--domainname",
        "example.test",
        "--add-host",
        "other:192.0.2.7",
        "--dns",
        "192.0.2.53",
        "--dns-search",
        "example.test",
        "--dns-opt",
        "ndots:3",
    ];
    let script = "hostname; cat /etc/hostname; grep other /etc/hosts; cat /etc/resolv.conf";
    observed(docker.sh(&options, script))
}
