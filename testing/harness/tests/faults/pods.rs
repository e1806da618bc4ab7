//! Containers of one sandbox: what befalls one of them is not the others' matter.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use harness::{Cofferdam, wait_until};
use serde_json::json;

use crate::bundle::{LIMIT, SLEEP, begin, bundle, bundle_with, call, create, text};

/// A running sandbox of this name, and a bundle of a container that joins it, as containerd's CRI has them.
fn sandbox(cofferdam: &Cofferdam, name: &str) -> PathBuf {
    let first = bundle(cofferdam, name, &SLEEP);
    create(cofferdam, &first, name);
    cofferdam.ok(["start", name]);
    let proxy = cofferdam.actors(name).proxy;
    joining(cofferdam, "joins", name, proxy)
}

/// A bundle of a container that joins a sandbox and shares what this process has.
fn joining(cofferdam: &Cofferdam, folder: &str, sandbox: &str, process: i32) -> PathBuf {
    bundle_with(cofferdam, folder, &SLEEP, |config| {
        config["annotations"] = json!({
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-id": sandbox,
        });
        let shared = |kind: &str, name: &str| json!({ "type": kind, "path": format!("/proc/{process}/ns/{name}") });
        config["linux"]["namespaces"] = json!([
            { "type": "pid" },
            { "type": "mount" },
            shared("ipc", "ipc"),
            shared("uts", "uts"),
            shared("network", "net"),
        ]);
        config
            .as_object_mut()
            .expect("an object")
            .remove("hostname");
    })
}

fn add(cofferdam: &Cofferdam, bundle: &std::path::Path, id: &str) {
    create(cofferdam, bundle, id);
    cofferdam.ok(["start", id]);
}

/// Which kernel a container runs on.
fn boot(cofferdam: &Cofferdam, id: &str) -> String {
    cofferdam.ok(["exec", id, "cat", "/proc/sys/kernel/random/boot_id"])
}

#[test]
fn the_sandbox_is_deleted_while_a_container_runs() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let joins = sandbox(&cofferdam, "s");
    add(&cofferdam, &joins, "c");
    let kernel = boot(&cofferdam, "s");
    assert_eq!(boot(&cofferdam, "c"), kernel);
    let first = cofferdam.actors("s");
    cofferdam.ok(["delete", "--force", "s"]);
    assert_eq!(cofferdam.status("s"), None);
    assert_eq!(boot(&cofferdam, "c"), kernel);
    let done = cofferdam.run(["create", "--bundle", text(&joins), "late"]);
    assert!(
        done.code != 0
            && done
                .stderr
                .contains("cannot join sandbox s: it does not exist"),
        "{done:?}"
    );
    assert!(!wait_until(Duration::ZERO, || !harness::is_alive(
        first.driver
    )));
    cofferdam.ok(["delete", "--force", "c"]);
    cofferdam.assert_nothing_left();
    for pid in first.all() {
        assert!(wait_until(LIMIT, || !harness::is_alive(pid)));
    }
}

#[test]
fn what_cannot_join_is_refused_and_the_sandbox_stays() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let joins = sandbox(&cofferdam, "s");
    let refused = |bundle: &std::path::Path, words: &[&str]| {
        let done = cofferdam.run(["create", "--bundle", text(bundle), "c"]);
        assert_ne!(done.code, 0, "{done:?}");
        for word in words {
            assert!(done.stderr.contains(word), "{word:?}: {done:?}");
        }
        assert_eq!(cofferdam.status("c"), None);
        assert_eq!(cofferdam.ok(["exec", "s", "echo", "here"]), "here\n");
    };
    let own = std::process::id().cast_signed();
    refused(
        &joining(&cofferdam, "foreign", "s", own),
        &["joining the ipc namespace", &format!("/proc/{own}/ns/ipc")],
    );
    refused(
        &joining(&cofferdam, "nowhere", "other", own),
        &["cannot join sandbox other: it does not exist in this runtime"],
    );
    let proxy = cofferdam.actors("s").proxy;
    let network = bundle_with(&cofferdam, "network", &SLEEP, |config| {
        config["annotations"] = json!({
            "io.kubernetes.cri-o.ContainerType": "container",
            "io.kubernetes.cri-o.SandboxID": "s",
        });
    });
    refused(&network, &["a network namespace that is not the sandbox's"]);
    let missing = bundle_with(&cofferdam, "missing", &SLEEP, |config| {
        let joins: serde_json::Value =
            serde_json::from_slice(&std::fs::read(joins.join("config.json")).expect("reads"))
                .expect("JSON");
        *config = joins;
        config["process"]["args"] = json!(["/no/such/command"]);
    });
    let done = cofferdam.run(["create", "--bundle", text(&missing), "c"]);
    if done.code == 0 {
        assert_ne!(cofferdam.run(["start", "c"]).code, 0);
        cofferdam.ok(["delete", "--force", "c"]);
    }
    assert_eq!(cofferdam.status("c"), None);
    let mounts =
        |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("reads");
    let server = cofferdam
        .actors("s")
        .helper("cofferdam-fs")
        .expect("it runs");
    assert!(!mounts(server).contains(" /c/"), "{}", mounts(server));

    // Without annotations the container is not of the sandbox, and its namespaces are nobody's.
    let alone = bundle_with(&cofferdam, "alone", &SLEEP, |config| {
        config["linux"]["namespaces"][2]["path"] = format!("/proc/{proxy}/ns/ipc").into();
    });
    refused(&alone, &["joining the ipc namespace"]);
    cofferdam.ok(["kill", "s", "KILL"]);
    cofferdam.wait_for_status("s", "stopped");
    let done = cofferdam.run(["create", "--bundle", text(&joins), "c"]);
    assert!(
        done.stderr.contains("cannot join sandbox s: it has ended"),
        "{done:?}"
    );
    cofferdam.ok(["delete", "s"]);
    cofferdam.assert_nothing_left();
}

#[test]
fn a_proxy_that_is_killed_takes_its_own_container_only() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let joins = sandbox(&cofferdam, "s");
    add(&cofferdam, &joins, "one");
    add(&cofferdam, &joins, "two");
    cofferdam.kill9(cofferdam.actors("one").proxy);
    cofferdam.wait_for_status("one", "stopped");
    cofferdam.ok(["delete", "one"]);
    assert_eq!(boot(&cofferdam, "two"), boot(&cofferdam, "s"));
    add(&cofferdam, &joins, "one");
    assert_eq!(boot(&cofferdam, "one"), boot(&cofferdam, "s"));
    // All at once, in no order.
    thread::scope(|scope| {
        for id in ["s", "one", "two"] {
            let cofferdam = &cofferdam;
            scope.spawn(move || cofferdam.ok(["delete", "--force", id]));
        }
    });
    cofferdam.assert_nothing_left();
}

#[test]
fn a_command_that_is_killed_while_its_container_joins_leaves_nothing() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let joins = sandbox(&cofferdam, "s");
    for milliseconds in [0, 20, 50, 100, 150, 200, 300] {
        let started = begin(&cofferdam, &["create", "--bundle", text(&joins), "c"]);
        thread::sleep(Duration::from_millis(milliseconds));
        started.kill9();
        // It may have been done, or not have begun.
        let done = cofferdam.run(["delete", "--force", "c"]);
        assert_eq!(done.code, 0, "{milliseconds} ms: {done:?}");
        assert_eq!(cofferdam.status("c"), None);
    }
    let came = wait_until(LIMIT, || {
        let done = call(&cofferdam, &["create", "--bundle", text(&joins), "c"]);
        // The last one may still be on its way out.
        assert!(
            done.code == 0 || done.stderr.contains("already"),
            "{done:?}"
        );
        done.code == 0
    });
    assert!(came);
    cofferdam.ok(["start", "c"]);
    assert_eq!(boot(&cofferdam, "c"), boot(&cofferdam, "s"));
    let server = cofferdam
        .actors("s")
        .helper("cofferdam-fs")
        .expect("it runs");
    let mounts = std::fs::read_to_string(format!("/proc/{server}/mountinfo")).expect("reads");
    assert_eq!(mounts.matches(" /c/rootfs ").count(), 1, "{mounts}");
    cofferdam.ok(["delete", "--force", "c"]);
    cofferdam.ok(["delete", "--force", "s"]);
    cofferdam.assert_nothing_left();
}
