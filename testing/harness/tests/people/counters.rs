//! `debug counters`: what a machine has done.

use harness::Cofferdam;
use serde_json::Value;

#[test]
fn a_machine_tells_what_it_has_done_or_that_it_does_not_count() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let image = cofferdam.busybox();
    cofferdam.ok(["run", "-d", "--name", "counted", image, "sleep", "600"]);
    let done = cofferdam.run(["debug", "counters", "counted", "--json"]);
    if std::env::var_os("COFFERDAM_TEST_ACCELERATOR").is_none_or(|name| name != "kvm") {
        // Those are QEMU's.
        assert_eq!(done.code, 1, "{done:?}");
        assert!(done.stderr.contains("does not count"), "{done:?}");
        return;
    }
    assert_eq!(done.code, 0, "{done:?}");
    let before: Value = serde_json::from_str(&done.stdout).expect("JSON");
    cofferdam.ok(["exec", "counted", "head", "-c", "100000", "/dev/zero"]);
    let text = cofferdam.ok(["debug", "counters", "counted", "--json"]);
    let after: Value = serde_json::from_str(&text).expect("JSON");
    let sent = |counters: &Value| {
        let mut devices = counters["devices"].as_array().expect("devices").iter();
        let sockets = devices.find(|device| device["kind"] == "sockets");
        let numbers = &sockets.expect("the link")["numbers"];
        numbers["tx_bytes"].as_u64().expect("a number")
    };
    assert!(sent(&after) >= sent(&before) + 100_000, "{before} {after}");
    let table = cofferdam.ok(["debug", "counters", "counted"]);
    for line in ["exits.mmio_reads", "sockets.2.kicks", "share."] {
        assert!(table.contains(line), "{line}: {table}");
    }
}

#[test]
fn counters_of_nothing_are_refused() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let done = cofferdam.run(["debug", "counters", "nobody"]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("nobody"), "{done:?}");
}
