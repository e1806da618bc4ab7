//! A real guest works on a real share. Needs root, QEMU, busybox and a guest kernel; says which is missing.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use common::{bind, possible, run};
use sandbox_share::{Entry, EntryKind};

/// Each line of the script's output is the name of a check and what came of it.
fn assert_lines(console: &str, expected: &[&str]) {
    for line in expected {
        assert!(
            console.lines().any(|seen| seen.trim() == *line),
            "{line:?} is not in:\n{console}"
        );
    }
}

#[tokio::test(flavor = "current_thread")]
async fn files_are_read_written_and_owned_as_on_a_disk() {
    if !possible() {
        return;
    }
    let host = tempfile::tempdir().expect("a folder");
    let rootfs = host.path().join("rootfs");
    fs::create_dir(&rootfs).expect("mkdir");
    fs::set_permissions(&rootfs, fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::write(rootfs.join("hello"), "from the host\n").expect("writes");
    let console = run(
        "files",
        vec![bind("c1/rootfs", &rootfs, false)],
        r#"
        cd c1/rootfs
        echo "read: $($b cat hello)"
        echo "guest" > new && echo "write: ok"
        $b chown 1000:1001 new && $b chmod 4750 new && echo "owner: $($b stat -c %u:%g:%a new)"
        $b mkdir -p a/b && $b mv new a/b/moved && echo "rename: ok"
        $b ln -s ../moved a/link && echo "symlink: $($b readlink a/link)"
        $b ln a/b/moved a/hard && echo "links: $($b stat -c %h a/hard)"
        $b mkfifo pipe && $b mknod null c 1 3 && echo "special: $($b stat -c %F:%t:%T null)"
        echo x > null && echo "device: $($b stat -c %s null)"
        $b dd if=/dev/zero of=big bs=1M count=8 2>/dev/null && echo "big: $($b stat -c %s big)"
        $b rm hello && echo "remove: ok"
        $b truncate -s 3 big && $b touch -d @1000000000 big && echo "times: $($b stat -c %Y:%s big)"
        umask 0; $b mkdir -m 1777 tmp && echo "mode: $($b stat -c %a tmp)"
        "#,
    )
    .await;
    assert_lines(
        &console,
        &[
            "read: from the host",
            "write: ok",
            "owner: 1000:1001:4750",
            "rename: ok",
            "symlink: ../moved",
            "links: 2",
            "special: character special file:1:3",
            "device: 0",
            "big: 8388608",
            "remove: ok",
            "times: 1000000000:3",
            "mode: 1777",
        ],
    );
    let moved = fs::metadata(rootfs.join("a/b/moved")).expect("the guest's file is on the host");
    assert_eq!(
        (moved.uid(), moved.gid(), moved.mode() & 0o7777),
        (1000, 1001, 0o4750)
    );
    assert_eq!(
        fs::read_to_string(rootfs.join("a/hard")).expect("reads"),
        "guest\n"
    );
    assert!(!rootfs.join("hello").exists());
}

#[tokio::test(flavor = "current_thread")]
async fn nothing_but_the_entries_can_be_reached() {
    if !possible() {
        return;
    }
    let host = tempfile::tempdir().expect("a folder");
    fs::write(host.path().join("secret"), "secret").expect("writes");
    let rootfs = host.path().join("rootfs");
    fs::create_dir(&rootfs).expect("mkdir");
    symlink("/etc/hostname", rootfs.join("absolute")).expect("symlink");
    symlink(
        "../../../../../../../../etc/hostname",
        rootfs.join("relative"),
    )
    .expect("symlink");
    symlink(host.path().join("secret"), rootfs.join("tosecret")).expect("symlink");
    let readonly = host.path().join("readonly");
    fs::create_dir(&readonly).expect("mkdir");
    fs::write(readonly.join("file"), "fixed").expect("writes");
    let single = host.path().join("single");
    fs::write(&single, "one file\n").expect("writes");
    let single_readonly = host.path().join("single-ro");
    fs::write(&single_readonly, "fixed").expect("writes");

    let console = run(
        "reach",
        vec![
            bind("c1/rootfs", &rootfs, false),
            bind("c1/mounts/0", &readonly, true),
            bind("c1/mounts/1", &single, false),
            bind("c1/mounts/2", &single_readonly, true),
        ],
        r#"
        # In the guest the links lead to the guest's own files, of which there are none.
        for link in absolute relative tosecret; do $b cat c1/rootfs/$link 2>/dev/null && echo "leak: $link"; done
        echo "root: $($b ls / | $b tr '\n' ' ')"
        echo "share: $($b ls /mnt /mnt/c1 /mnt/c1/mounts | $b tr '\n' ' ')"
        echo "up: $($b stat -c %i /mnt/..) $($b stat -c %i /)"
        echo x 2>/dev/null > new && echo "the root is writable"
        $b mkdir c2 2>/dev/null && echo "the root is writable"
        echo x 2>/dev/null > c1/mounts/0/new && echo "read-only folder was written"
        echo x 2>/dev/null >> c1/mounts/0/file && echo "read-only file was written"
        $b rm c1/mounts/0/file 2>/dev/null && echo "read-only file was removed"
        $b chmod 777 c1/mounts/0/file 2>/dev/null && echo "read-only file was changed"
        $b mount -o remount,rw /mnt 2>/dev/null; echo x 2>/dev/null > c1/mounts/0/new && echo "read-only folder was written"
        echo x 2>/dev/null > c1/mounts/2 && echo "read-only single file was written"
        echo "single: $($b cat c1/mounts/1)"
        echo more >> c1/mounts/1 && echo "append: ok"
        $b rm c1/mounts/1 2>/dev/null && echo "a mount point was removed"
        a=$($b stat -c %d c1/rootfs); c=$($b stat -c %d c1/mounts/0); [ "$a" != "$c" ] && echo "devices: apart"
        "#,
    )
    .await;
    for word in [
        "leak",
        "was written",
        "was removed",
        "was changed",
        "is writable",
    ] {
        assert!(!console.contains(word), "{console}");
    }
    assert_lines(
        &console,
        &[
            "share: /mnt: c1  /mnt/c1: mounts rootfs  /mnt/c1/mounts: 0 1 2",
            "single: one file",
            "append: ok",
            "devices: apart",
        ],
    );
    assert_eq!(
        fs::read_to_string(&single).expect("reads"),
        "one file\nmore\n"
    );
    assert_eq!(
        fs::read_to_string(readonly.join("file")).expect("reads"),
        "fixed"
    );
}

#[tokio::test(flavor = "current_thread")]
async fn an_overlay_keeps_its_layers() {
    if !possible() {
        return;
    }
    // Overlays can't have an upper folder on an overlay, which a container's /tmp may be.
    let host = tempfile::tempdir_in(
        std::env::var_os("COFFERDAM_TEST_DIR").unwrap_or_else(|| "/var/tmp".into()),
    )
    .expect("a folder");
    let folder = |name: &str| {
        let path = host.path().join(name);
        fs::create_dir(&path).expect("mkdir");
        path
    };
    let (bottom, top) = (folder("layer:with,odd\\name"), folder("top"));
    let (upper, work) = (folder("upper, with : odd \\ name"), folder("work"));
    fs::write(bottom.join("below"), "bottom").expect("writes");
    fs::write(bottom.join("both"), "bottom").expect("writes");
    fs::write(top.join("both"), "top").expect("writes");
    let entry = Entry {
        path: "c1/rootfs".into(),
        kind: EntryKind::Overlay {
            lower: vec![top.clone(), bottom.clone()],
            upper: upper.clone(),
            work,
        },
    };
    let console = run(
        "overlay",
        vec![entry],
        r#"
        cd c1/rootfs
        echo "both: $($b cat both)"
        echo changed > below && echo "copy up: ok"
        $b rm both && echo "whiteout: $($b ls | $b tr '\n' ' ')"
        "#,
    )
    .await;
    assert_lines(&console, &["both: top", "copy up: ok", "whiteout: below"]);
    assert_eq!(
        fs::read_to_string(bottom.join("below")).expect("reads"),
        "bottom"
    );
    assert_eq!(
        fs::read_to_string(upper.join("below")).expect("reads"),
        "changed\n"
    );
    assert!(top.join("both").exists());
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("reads");
    assert!(
        !mounts.contains(host.path().to_str().expect("text")),
        "no mount shows on the host"
    );
}

#[tokio::test(flavor = "current_thread")]
async fn many_files_do_not_exhaust_the_server() {
    if !possible() {
        return;
    }
    let host = tempfile::tempdir().expect("a folder");
    let count = 30_000;
    for folder in 0..count / 1000 {
        let folder = host.path().join(folder.to_string());
        fs::create_dir(&folder).expect("mkdir");
        for file in 0..1000 {
            fs::write(folder.join(file.to_string()), "").expect("writes");
        }
    }
    let console = run(
        "many",
        vec![bind("c1/rootfs", host.path(), true)],
        r#"echo "found: $($b find c1/rootfs -type f -size -1 | $b wc -l)""#,
    )
    .await;
    assert_lines(&console, &[&format!("found: {count}")]);
}
