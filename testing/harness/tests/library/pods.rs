//! Containers that come and go in a running sandbox.

use std::fs;
use std::time::Duration;

use harness::{Cofferdam, wait_until};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use sandbox::spec::Rootfs;
use sandbox::{Sandbox, SandboxError};

use crate::machine::{boot, collected, id, layered, on_one_thread, rootfs, run, script, start};

/// What the file server of a sandbox has mounted and open.
fn held(sandbox: &Sandbox) -> (String, Vec<String>) {
    let is_server = |pid: &&u32| {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path.ends_with("cofferdam-fs"))
    };
    let server = sandbox.processes().iter().find(is_server).expect("it runs");
    let mounts = fs::read_to_string(format!("/proc/{server}/mountinfo")).expect("reads");
    let open = fs::read_dir(format!("/proc/{server}/fd")).expect("lists");
    let mut open: Vec<_> = open
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .map(|target| target.display().to_string())
        .collect();
    open.sort();
    (mounts, open)
}

/// As [`held`], once it stays so: what the guest has looked at during its start is closed a moment later.
fn settled(sandbox: &Sandbox) -> (String, Vec<String>) {
    let mut last = held(sandbox);
    wait_until(Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(100));
        let now = held(sandbox);
        let same = now == last;
        last = now;
        same
    });
    last
}

/// A file that the guest has closed is told to the server a moment later.
fn expect_held(sandbox: &Sandbox, expected: &(String, Vec<String>)) {
    wait_until(Duration::from_secs(60), || held(sandbox) == *expected);
    assert_eq!(held(sandbox), *expected);
}

#[test]
fn a_container_can_be_made_again_under_its_name() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let lower = rootfs(&cofferdam);
    on_one_thread(async {
        let sandbox = boot(&cofferdam).await;
        let storage = cofferdam.folder().join("storage");
        for round in 0..3 {
            let rootfs = layered(&lower, &storage);
            let text = "test -e /round && cat /round; echo $((1 + $(cat /round 2>/dev/null || echo 0))) > /round; exit 7";
            let (code, output) = run(&sandbox, "again", &script("again", &rootfs, text)).await;
            let expected = if round == 0 {
                String::new()
            } else {
                format!("{round}\n")
            };
            assert_eq!((code, output), (7, expected));
            let written = fs::read_to_string(storage.join("upper/round")).expect("on the host");
            assert_eq!(written, format!("{}\n", round + 1));
            overlay_is_gone(&cofferdam, &lower);
        }
        sandbox.stop().await;
    });
    cofferdam.assert_nothing_left();
}

/// Overlayfs refuses the folders of an overlay that is alive anywhere, when told to look.
fn overlay_is_gone(cofferdam: &Cofferdam, lower: &std::path::Path) {
    let storage = cofferdam.folder().join("storage");
    let merged = cofferdam.folder().join("merged");
    fs::create_dir_all(&merged).expect("mkdir");
    let options = format!(
        "index=on,lowerdir={},upperdir={1}/upper,workdir={1}/work",
        lower.display(),
        storage.display()
    );
    let options = std::ffi::CString::new(options).expect("text");
    mount(
        "overlay",
        &merged,
        "overlay",
        MountFlags::empty(),
        Some(options.as_c_str()),
    )
    .expect("no overlay of the removed container is left");
    unmount(&merged, UnmountFlags::empty()).expect("unmounts");
    // What the check itself left there.
    fs::remove_dir_all(storage.join("work")).expect("removes");
}

#[test]
fn one_container_goes_and_the_other_stays() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let shared = Rootfs::Layers {
        layers: vec![rootfs(&cofferdam)],
        upper: cofferdam.folder().join("one/upper"),
        work: cofferdam.folder().join("one/work"),
    };
    let lower = cofferdam.folder().join("rootfs");
    layered(&lower, &cofferdam.folder().join("one"));
    let other = layered(&lower, &cofferdam.folder().join("other"));
    on_one_thread(async {
        let sandbox = boot(&cofferdam).await;
        let before = settled(&sandbox);
        // Shown to this one only, and what it does to them is not the other's.
        let text = "trap '' TERM; echo one > /file; (sleep 1000 & sleep 1000 & sleep 1000) & wait";
        let (one, _) = start(&sandbox, "one", &script("one", &shared, text))
            .await
            .expect("starts");
        let text = "trap 'cat /file; exit 3' USR1; echo before; while :; do sleep 0.1; done";
        let spec = script("other", &other, text);
        let (staying, output) = start(&sandbox, "other", &spec).await.expect("starts");

        let pids = |stats: serde_json::Value| stats["pids"]["current"].as_u64().expect("a number");
        let count = async || {
            let (one, other) = (one.stats().await, staying.stats().await);
            (
                pids(one.expect("statistics")),
                pids(other.expect("statistics")),
            )
        };
        while count().await.0 < 4 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(
            count().await.1 <= 2,
            "each container has statistics of its own"
        );
        let error = sandbox.create(&id("one"), &spec, collected().0).await;
        assert!(matches!(error, Err(SandboxError::Taken(_))), "{error:?}");

        one.delete().await.expect("deletes");
        one.delete().await.expect("it is gone already");
        assert_eq!(one.wait().await.signal, Some(9));
        let error = one.stats().await.expect_err("it is gone").to_string();
        assert!(error.contains("\"one\" does not exist"), "{error}");
        fs::remove_dir_all(cofferdam.folder().join("one")).expect("nothing holds it");
        staying.kill(10, false).await.expect("signals");
        let exit = staying.wait().await;
        let text = "before\ncat: can't open '/file': No such file or directory\n";
        assert_eq!((exit.code, output.text().as_str()), (3, text));
        staying.delete().await.expect("deletes");

        expect_held(&sandbox, &before);
        sandbox.stop().await;
    });
    cofferdam.assert_nothing_left();
}

#[test]
fn a_container_that_cannot_be_made_leaves_nothing() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let lower = rootfs(&cofferdam);
    on_one_thread(async {
        let sandbox = boot(&cofferdam).await;
        let before = settled(&sandbox);
        let rootfs = layered(&lower, &cofferdam.folder().join("storage"));
        let mut spec = script("c", &rootfs, "true");
        let process = spec.spec.process().clone().map(|mut process| {
            process.set_args(Some(vec!["/no/such/command".to_owned()]));
            process
        });
        spec.spec.set_process(process);
        let made = sandbox.create(&id("c"), &spec, collected().0).await;
        let error = match made {
            Err(error) => error,
            // Some commands are looked for only when they are to run.
            Ok(container) => {
                let error = container
                    .start()
                    .await
                    .expect_err("there is no such command");
                container.delete().await.expect("deletes");
                error
            }
        };
        assert!(error.to_string().contains("/no/such/command"), "{error}");
        expect_held(&sandbox, &before);

        let missing = Rootfs::Layers {
            layers: vec![cofferdam.folder().join("nowhere")],
            upper: cofferdam.folder().join("storage/upper"),
            work: cofferdam.folder().join("storage/work"),
        };
        let spec = script("c", &missing, "true");
        let error = sandbox
            .create(&id("c"), &spec, collected().0)
            .await
            .expect_err("no such folder");
        let error = sandbox::chain(&error);
        assert!(
            error.contains("share entry c/rootfs: cannot open") && error.contains("nowhere"),
            "{error}"
        );
        expect_held(&sandbox, &before);

        // Given up half way.
        let spec = script("c", &rootfs, "true");
        let name = id("c");
        let given_up = tokio::time::timeout(
            std::time::Duration::from_millis(20),
            sandbox.create(&name, &spec, collected().0),
        );
        assert!(given_up.await.is_err(), "it takes longer");
        let (code, _) = loop {
            let (stdio, _output) = collected();
            match sandbox.create(&id("c"), &spec, stdio).await {
                // The first one is still being undone.
                Err(SandboxError::Taken(_)) => {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await
                }
                made => {
                    let container = made.expect("makes");
                    container.start().await.expect("starts");
                    let code = container.wait().await.code;
                    container.delete().await.expect("deletes");
                    break (code, ());
                }
            }
        };
        assert_eq!(code, 0);
        expect_held(&sandbox, &before);
        sandbox.stop().await;
    });
    cofferdam.assert_nothing_left();
}

#[test]
fn many_containers_come_and_go_at_once() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let lower = rootfs(&cofferdam);
    on_one_thread(async {
        let sandbox = boot(&cofferdam).await;
        let before = settled(&sandbox);
        for _round in 0..2 {
            let one = async |number: u32| {
                let name = format!("c{number}");
                let rootfs = layered(&lower, &cofferdam.folder().join(&name));
                let text = format!("echo {number}; exit {number}");
                run(&sandbox, &name, &script(&name, &rootfs, &text)).await
            };
            let ended = tokio::join!(one(1), one(2), one(3), one(4), one(5));
            let expected = |number: u8| (number, format!("{number}\n"));
            assert_eq!(
                ended,
                (
                    expected(1),
                    expected(2),
                    expected(3),
                    expected(4),
                    expected(5)
                )
            );
        }
        expect_held(&sandbox, &before);
        sandbox.stop().await;
    });
    cofferdam.assert_nothing_left();
}
