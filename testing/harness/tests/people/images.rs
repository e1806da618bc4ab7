//! Where images come from, and `check`.

use std::path::Path;

use harness::{Cofferdam, Registry};

#[test]
fn archives_and_registries_give_the_same_image() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let archive = match harness::image("busybox.docker.tar") {
        Ok(archive) => archive,
        Err(reason) => return eprintln!("SKIPPED: {reason}"),
    };
    let show = ["cat", "/etc/passwd"];
    let run = |image: &str| {
        let done = cofferdam.run(["run", "--rm", image].into_iter().chain(show));
        assert_eq!(done.code, 0, "{image}: {done:?}");
        done.stdout
    };
    let wanted = run(cofferdam.busybox());
    assert!(wanted.starts_with("root:"), "{wanted}");
    assert_eq!(run(archive.to_str().unwrap()), wanted);
    let packed = cofferdam.folder().join("busybox.tar.zst");
    let zstd = std::process::Command::new("zstd")
        .args(["-q", "-o"])
        .args([&packed, &archive])
        .status();
    if zstd.is_ok_and(|status| status.success()) {
        assert_eq!(run(packed.to_str().unwrap()), wanted);
    }
    let loaded = cofferdam.ok(["load", "-i", archive.to_str().unwrap()]);
    assert!(loaded.contains("busybox"), "{loaded}");

    let Some(registry) = Registry::start(cofferdam.folder()) else {
        return;
    };
    registry.push(Path::new(cofferdam.busybox()), "test/box");
    let name = format!("{}/test/box", registry.address);
    let done = cofferdam.run(["run", "--rm", &name, "cat", "/etc/passwd"]);
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (0, wanted.as_str()),
        "{done:?}"
    );
    assert!(
        done.stderr.contains(&format!("Pulling {name}")),
        "plain lines: {done:?}"
    );
    let digest = cofferdam.ok(["pull", &name]);
    assert!(digest.starts_with("sha256:"), "{digest}");
    let listed = cofferdam.ok(["images"]);
    assert!(listed.contains(&name), "{listed}");
    let missing = format!("{}/test/nosuch", registry.address);
    let done = cofferdam.run(["pull", &missing]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("nosuch"), "{done:?}");
    drop(registry);
    cofferdam.assert_nothing_left();
}

#[test]
fn check_says_what_is_there_and_what_is_missing() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let done = cofferdam.run(["check", "--json"]);
    assert_eq!(done.code, 0, "{done:?}");
    let found: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(found["usable"], true, "{found}");
    assert!(cofferdam.ok(["check"]).contains("containers can run here"));

    let Some(broken) =
        Cofferdam::with_config("qemu = \"/nosuch/qemu\"\nkernel = \"/nosuch/vmlinux\"")
    else {
        return;
    };
    let done = broken.run(["check"]);
    assert_eq!(done.code, 1, "{done:?}");
    for text in [
        "/nosuch/qemu",
        "apt-get install",
        "/nosuch/vmlinux",
        "make install",
    ] {
        assert!(done.stdout.contains(text), "{text}: {done:?}");
    }
    let done = broken.run(["run", "--rm", broken.busybox(), "true"]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("/nosuch/"), "{done:?}");
    broken.assert_nothing_left();
}
