//! Entries that come and go while a server runs. Needs root.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use common::{bind, config, possible, run_with};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use sandbox_share::{Entry, EntryKind, Removal, ShareServer};

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// A running server of one entry, `c1/rootfs`, and where its tree can be seen from.
async fn server(host: &Path) -> (ShareServer, PathBuf) {
    let rootfs = host.join("c1");
    fs::create_dir(&rootfs).expect("mkdir");
    let mut server =
        ShareServer::spawn(config(vec![bind("c1/rootfs", &rootfs, false)])).expect("starts");
    server.ready().await.expect("serves");
    let tree = PathBuf::from(format!("/proc/{}/root", server.pid().expect("it runs")));
    (server, tree)
}

/// Everything that a tree has down to its entries, and its mounts.
fn outline(tree: &Path) -> (Vec<String>, String) {
    let mut names = Vec::new();
    let mut folders = vec![tree.to_owned()];
    let device = fs::metadata(tree).expect("stat").dev();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("lists") {
            let path = entry.expect("entry").path();
            let status = fs::symlink_metadata(&path).expect("stat");
            names.push(
                path.strip_prefix(tree)
                    .expect("below")
                    .display()
                    .to_string(),
            );
            if status.is_dir() && status.dev() == device {
                folders.push(path);
            }
        }
    }
    names.sort();
    let mounts = fs::read_to_string(tree.join("../mountinfo")).unwrap_or_else(|_| {
        let folder = tree.parent().expect("the process");
        fs::read_to_string(folder.join("mountinfo")).expect("reads")
    });
    (names, mounts)
}

fn paths(entries: &[Entry]) -> Vec<PathBuf> {
    entries.iter().map(|entry| entry.path.clone()).collect()
}

#[tokio::test(flavor = "current_thread")]
async fn entries_come_and_go() {
    if !root() {
        return;
    }
    // Overlays can't have an upper folder on an overlay, which a container's /tmp may be.
    let host = tempfile::tempdir_in(
        std::env::var_os("COFFERDAM_TEST_DIR").unwrap_or_else(|| "/var/tmp".into()),
    )
    .expect("a folder");
    let (server, tree) = server(host.path()).await;
    let before = outline(&tree);
    let folder = |name: &str| {
        let path = host.path().join(name);
        fs::create_dir(&path).expect("mkdir");
        path
    };
    let (lower, upper, work) = (folder("lower"), folder("upper"), folder("work"));
    fs::write(lower.join("below"), "layer").expect("writes");
    let data = folder("data");
    let inner = folder("data/inner");
    mount("tmpfs", &inner, "tmpfs", MountFlags::empty(), None).expect("mounts");
    fs::write(inner.join("deep"), "deep").expect("writes");
    let file = host.path().join("file");
    fs::write(&file, "single").expect("writes");
    let entries = vec![
        Entry {
            path: "c2/rootfs".into(),
            kind: EntryKind::Overlay {
                lower: vec![lower],
                upper: upper.clone(),
                work,
            },
        },
        bind("c2/mounts/0", &data, true),
        bind("c2/mounts/1", &file, false),
    ];
    // Twice, since a container can be restarted under its name.
    for round in 0..2 {
        server.editor().add(entries.clone()).await.expect("adds");
        let read = |path: &str| fs::read_to_string(tree.join(path)).expect("reads");
        assert_eq!(read("c2/rootfs/below"), "layer");
        assert_eq!(read("c2/mounts/0/inner/deep"), "deep");
        assert_eq!(read("c2/mounts/1"), "single");
        fs::write(tree.join(format!("c2/rootfs/new{round}")), "").expect("the overlay is writable");
        for path in ["c2/mounts/0/x", "c2/mounts/0/inner/x", "c2/x", "x"] {
            let error = fs::write(tree.join(path), "").expect_err("read-only");
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::ReadOnlyFilesystem,
                "{path}"
            );
        }
        let removal = server
            .editor()
            .remove(paths(&entries))
            .await
            .expect("removes");
        assert_eq!(removal, Removal::Complete);
        assert_eq!(outline(&tree), before);
    }
    assert!(upper.join("new0").exists() && upper.join("new1").exists());
    unmount(&inner, UnmountFlags::empty()).expect("nothing holds it");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("reads");
    assert!(!mounts.contains(host.path().to_str().expect("text")));
    // What is not there is no error: a removal may have to be repeated.
    let again = server.editor().remove(paths(&entries)).await;
    assert_eq!(again.expect("nothing to remove"), Removal::Complete);
}

#[tokio::test(flavor = "current_thread")]
async fn an_addition_that_fails_leaves_nothing() {
    if !root() {
        return;
    }
    let host = tempfile::tempdir().expect("a folder");
    let (server, tree) = server(host.path()).await;
    fs::write(host.path().join("c1/mine"), "").expect("writes");
    let before = outline(&tree);
    for (entries, reason) in [
        (
            vec![
                bind("c2/rootfs", host.path(), false),
                bind("c2/mounts/0", Path::new("/nowhere"), false),
            ],
            "share entry c2/mounts/0: cannot open /nowhere: no such file or directory",
        ),
        // Half of it was there when this one turned out to be taken.
        (
            vec![
                bind("c2/mounts/0", host.path(), false),
                bind("c1/rootfs", host.path(), false),
            ],
            "share entry c1/rootfs: cannot make a place for c1/rootfs: file exists",
        ),
        (
            vec![bind("c1/rootfs/inside", host.path(), false)],
            "share entry c1/rootfs/inside: cannot make a place for c1/rootfs/inside: ",
        ),
        (
            vec![bind("../c2", host.path(), false)],
            "share entry ../c2: cannot use the name ../c2: not a relative path of plain names",
        ),
    ] {
        let error = server.editor().add(entries).await.expect_err("refused");
        assert!(error.to_string().starts_with(reason), "{error}");
        assert_eq!(outline(&tree), before);
    }
    assert!(!host.path().join("c1/inside").exists());
    for path in ["", "/etc", "../c1", "c1/.."] {
        let error = server
            .editor()
            .remove(vec![path.into()])
            .await
            .expect_err("refused");
        assert!(error.to_string().contains("not a relative path"), "{error}");
    }
    assert!(tree.join("c1/rootfs/mine").exists());
}

#[tokio::test(flavor = "current_thread")]
async fn a_dead_server_is_not_taken_for_another_process() {
    if !root() {
        return;
    }
    let host = tempfile::tempdir().expect("a folder");
    let (mut server, _) = server(host.path()).await;
    server.stop().await.expect("stops");
    let added = server
        .editor()
        .add(vec![bind("c2", host.path(), false)])
        .await;
    let error = added.expect_err("there is no server").to_string();
    assert!(error.contains("file server"), "{error}");
    // What it showed is gone with it.
    let removed = server.editor().remove(vec!["c1/rootfs".into()]).await;
    assert_eq!(removed.expect("nothing is left"), Removal::Complete);
}

/// What a guest sees of entries that come while it runs, and that it can let go of them.
#[tokio::test(flavor = "current_thread")]
async fn a_guest_works_on_what_comes_and_lets_go() {
    if !root() || !possible() {
        return;
    }
    let host = tempfile::tempdir_in(
        std::env::var_os("COFFERDAM_TEST_DIR").unwrap_or_else(|| "/var/tmp".into()),
    )
    .expect("a folder");
    let folder = |name: &str| {
        let path = host.path().join(name);
        fs::create_dir(&path).expect("mkdir");
        path
    };
    let first = folder("c1");
    let (lower, upper, work) = (folder("lower"), folder("upper"), folder("work"));
    fs::write(lower.join("below"), "layer").expect("writes");
    for number in 0..3000 {
        fs::write(lower.join(format!("many{number}")), "").expect("writes");
    }
    // Fresh file systems, so that their files have the same inode numbers.
    let (one, other) = (folder("one"), folder("other"));
    for place in [&one, &other] {
        mount("tmpfs", place, "tmpfs", MountFlags::empty(), None).expect("mounts");
        let name = place.file_name().expect("a name").as_encoded_bytes();
        fs::write(place.join("same"), name).expect("writes");
    }
    let inode = |place: &Path| fs::metadata(place.join("same")).expect("stat").ino();
    assert_eq!(inode(&one), inode(&other), "the test needs them alike");
    let overlay = Entry {
        path: "c2/rootfs".into(),
        kind: EntryKind::Overlay {
            lower: vec![lower],
            upper: upper.clone(),
            work: work.clone(),
        },
    };
    let entries = vec![
        overlay,
        bind("c2/mounts/0", &one, false),
        bind("c2/mounts/1", &other, false),
    ];
    let script = r#"
        until $b test -e c2/mounts/1/same; do $b usleep 20000; done
        echo "same: $($b cat c2/mounts/0/same) $($b cat c2/mounts/1/same)"
        echo "below: $($b cat c2/rootfs/below), $($b ls c2/rootfs | $b wc -l) names"
        echo changed > c2/rootfs/below && $b mv c2/rootfs/below c2/rootfs/moved && echo "moved: $($b cat c2/rootfs/moved)"
        $b mv c2/rootfs/many1 c2/mounts/0/many1 && echo "across: ok"
        echo more >> c2/mounts/1/same && $b stat -c "size: %s" c2/mounts/1/same
        exec 5< c2/rootfs/moved
        echo "holding"
        while $b test -e c2/rootfs; do $b usleep 20000; done
        until $b test -e c1/rootfs/go; do $b usleep 20000; done
        echo "still: $($b cat <&5)"
        exec 5<&-
        $b umount -l c2/rootfs 2>/dev/null; $b mount -o remount /mnt && echo "let go"
        until $b test -e c2/rootfs/below; do $b usleep 20000; done
        echo "again: $($b ls c2 | $b tr '\n' ' ')"
        $b umount -l c2/rootfs; $b mount -o remount /mnt && echo "released"
        while $b test -e c2; do $b usleep 20000; done
        echo "first: $($b ls c1/rootfs | $b tr '\n' ' ')$($b ls)"
    "#;
    fs::write(first.join("mine"), "").expect("writes");
    let (removed, last) = (paths(&entries), paths(&entries[..1]));
    let console = run_with(
        "change",
        vec![bind("c1/rootfs", &first, false)],
        script,
        async |editor, console| {
            editor.add(entries.clone()).await.expect("adds");
            console.shows("holding").await;
            // The guest can find it no longer, and keeps what it has.
            let removal = editor.remove(removed).await.expect("removes");
            assert_eq!(removal, Removal::Held);
            fs::write(first.join("go"), "").expect("writes");
            console.shows("let go").await;
            unmount(&one, UnmountFlags::empty()).expect("nothing holds it");
            // An overlay that is alive somewhere refuses another on its folders, when told to look.
            let options = format!(
                "index=on,lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work",
                host.path().display()
            );
            let options = std::ffi::CString::new(options).expect("text");
            let merged = host.path().join("one");
            mount(
                "overlay",
                &merged,
                "overlay",
                MountFlags::empty(),
                Some(options.as_c_str()),
            )
            .expect("the overlay is gone");
            unmount(&merged, UnmountFlags::empty()).expect("unmounts");
            fs::remove_file(upper.join("below")).expect("the whiteout");
            editor.add(entries[..1].to_vec()).await.expect("adds again");
            console.shows("released").await;
            let removal = editor.remove(last).await.expect("removes");
            assert_eq!(removal, Removal::Complete);
        },
    )
    .await;
    unmount(&other, UnmountFlags::empty()).expect("nothing holds it");
    for line in [
        "same: one other",
        "below: layer, 3001 names",
        "moved: changed",
        "across: ok",
        "size: 10",
        "still: changed",
        "again: rootfs ",
        "first: go mine c1",
    ] {
        assert!(
            console.lines().any(|seen| seen.trim() == line.trim()),
            "{line:?} is not in:\n{console}"
        );
    }
    assert_eq!(
        fs::read_to_string(upper.join("moved")).expect("reads"),
        "changed\n"
    );
}
