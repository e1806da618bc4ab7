//! Commands that are killed half way.

use std::thread::sleep;
use std::time::Duration;

use harness::{Cofferdam, wait_until};

use crate::bundle::{LIMIT, SLEEP, begin, bundle, create, text};

/// From before anything was done until after all was done, in milliseconds.
const MOMENTS: [u64; 8] = [0, 5, 20, 60, 150, 400, 900, 2500];

#[test]
fn create_killed_at_any_moment_leaves_nothing() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let bundle = bundle(&cofferdam, "b", &SLEEP);
    for moment in MOMENTS {
        let command = begin(&cofferdam, &["create", "--bundle", text(&bundle), "c"]);
        sleep(Duration::from_millis(moment));
        command.kill9();
        // Whole or not at all; nothing in between stays.
        let settled = wait_until(LIMIT, || {
            matches!(
                cofferdam.status("c").as_deref(),
                None | Some("stopped" | "created")
            )
        });
        let status = cofferdam.status("c");
        assert!(
            settled,
            "killed after {moment} ms: {status:?}\n{}",
            cofferdam.log()
        );
        let delete = match status.as_deref() {
            Some("stopped") => cofferdam.run(["delete", "c"]),
            _ => cofferdam.run(["delete", "--force", "c"]),
        };
        assert_eq!(delete.code, 0, "killed after {moment} ms: {delete:?}");
        cofferdam.assert_nothing_left();
    }
}

#[test]
fn a_killed_create_can_be_repeated() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let bundle = bundle(&cofferdam, "b", &SLEEP);
    let command = begin(&cofferdam, &["create", "--bundle", text(&bundle), "c"]);
    assert!(wait_until(LIMIT, || cofferdam.root().join("c").exists()));
    command.kill9();
    cofferdam.ok(["delete", "--force", "c"]);
    create(&cofferdam, &bundle, "c");
    cofferdam.ok(["start", "c"]);
    assert_eq!(cofferdam.ok(["exec", "c", "echo", "works"]), "works\n");
    cofferdam.ok(["delete", "--force", "c"]);
    cofferdam.assert_nothing_left();
}

#[test]
fn start_killed_half_way_has_started_or_not() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let bundle = bundle(&cofferdam, "b", &SLEEP);
    for moment in [0, 3, 10, 30, 100] {
        create(&cofferdam, &bundle, "c");
        let command = begin(&cofferdam, &["start", "c"]);
        sleep(Duration::from_millis(moment));
        command.kill9();
        let status = cofferdam.status("c");
        match status.as_deref() {
            // The request may still be on its way: then this one is second, and says so.
            Some("created") => {
                let again = cofferdam.run(["start", "c"]);
                assert!(
                    again.code == 0 || again.stderr.contains("already running"),
                    "after {moment} ms: {again:?}"
                );
            }
            Some("running") => {}
            other => panic!("killed after {moment} ms: {other:?}"),
        }
        cofferdam.wait_for_status("c", "running");
        assert_eq!(cofferdam.ok(["exec", "c", "echo", "works"]), "works\n");
        cofferdam.ok(["delete", "--force", "c"]);
        cofferdam.assert_nothing_left();
    }
}

#[test]
fn exec_killed_at_any_moment_takes_its_process_along() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let bundle = bundle(&cofferdam, "b", &SLEEP);
    create(&cofferdam, &bundle, "c");
    cofferdam.ok(["start", "c"]);
    let count = || {
        cofferdam
            .ok(["ps", "c"])
            .lines()
            .filter(|line| line.contains("4242"))
            .count()
    };
    for moment in [0, 5, 20, 60, 150, 400, 900] {
        let command = begin(&cofferdam, &["exec", "c", "sleep", "4242"]);
        sleep(Duration::from_millis(moment));
        command.kill9();
    }
    let command = begin(&cofferdam, &["exec", "c", "sleep", "4242"]);
    assert!(
        wait_until(LIMIT, || count() > 0),
        "a check of the check: it is seen when it runs"
    );
    command.kill9();
    // One that was just being asked for may come and go once more.
    let gone = wait_until(LIMIT, || {
        count() == 0 && {
            sleep(Duration::from_secs(1));
            count() == 0
        }
    });
    assert!(gone, "{}", cofferdam.ok(["ps", "c"]));
    assert_eq!(cofferdam.ok(["exec", "c", "echo", "works"]), "works\n");
    cofferdam.ok(["delete", "--force", "c"]);
    cofferdam.assert_nothing_left();
}

#[test]
fn delete_killed_half_way_can_be_repeated() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let bundle = bundle(&cofferdam, "b", &SLEEP);
    for moment in [0, 2, 5, 10, 20, 50, 150] {
        create(&cofferdam, &bundle, "c");
        cofferdam.ok(["start", "c"]);
        let command = begin(&cofferdam, &["delete", "--force", "c"]);
        sleep(Duration::from_millis(moment));
        command.kill9();
        let again = cofferdam.run(["delete", "--force", "c"]);
        assert_eq!(again.code, 0, "killed after {moment} ms: {again:?}");
        cofferdam.assert_nothing_left();
    }
}
