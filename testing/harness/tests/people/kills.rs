//! What remains when commands are killed.

use std::fs;
use std::time::Duration;

use harness::{Cofferdam, is_alive, wait_until};

use crate::LIMIT;

#[test]
fn killing_the_command_ends_the_container_and_the_next_one_clears_up() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let busybox = cofferdam.busybox();
    let running = cofferdam.start(["run", "--rm", "--name", "victim", busybox, "sleep", "600"]);
    cofferdam.wait_for_status("victim", "running");
    let actors = cofferdam.actors("victim");
    assert_eq!(actors.proxy, running.pid());
    running.signal(9);
    assert_eq!(running.finish(LIMIT).code, 137);
    let gone = wait_until(LIMIT, || actors.all().iter().all(|&pid| !is_alive(pid)));
    assert!(gone, "{actors:?}");
    assert_eq!(cofferdam.status("victim").as_deref(), Some("stopped"));
    // It was to be removed at its end: whoever comes next does that.
    cofferdam.ok(["run", "--rm", busybox, "true"]);
    cofferdam.assert_nothing_left();
}

#[test]
fn a_container_whose_proxy_was_killed_can_be_removed() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    cofferdam.ok([
        "run",
        "-d",
        "--name",
        "victim",
        cofferdam.busybox(),
        "sleep",
        "600",
    ]);
    let actors = cofferdam.actors("victim");
    cofferdam.kill9(actors.proxy);
    cofferdam.wait_for_status("victim", "stopped");
    cofferdam.ok(["rm", "victim"]);
    cofferdam.assert_nothing_left();
}

#[test]
fn a_command_that_is_killed_at_any_moment_leaves_nothing_after_rm() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let busybox = cofferdam.busybox();
    cofferdam.ok(["load", "-i", busybox]);
    for (number, delay) in [1, 30, 80, 150, 250, 400, 700, 1200]
        .into_iter()
        .enumerate()
    {
        let name = format!("victim{number}");
        let running = cofferdam.start(["run", "-d", "--name", &name, "busybox", "sleep", "600"]);
        std::thread::sleep(Duration::from_millis(delay));
        running.signal(9);
        let _ended = running.finish(LIMIT);
        cofferdam.ok(["rm", "-f", &name]);
    }
    cofferdam.assert_nothing_left();
}

#[test]
fn what_a_boot_of_the_host_leaves_is_swept() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let busybox = cofferdam.busybox();
    cofferdam.ok(["run", "-d", "--name", "before", busybox, "true"]);
    cofferdam.wait_for_status("before", "stopped");
    let actors = cofferdam.actors("before");
    let gone = wait_until(LIMIT, || actors.all().iter().all(|&pid| !is_alive(pid)));
    assert!(gone, "{actors:?}");
    // The state directory is on a tmpfs, the data directory on a disk.
    fs::remove_dir_all(cofferdam.root()).unwrap();
    assert!(
        cofferdam
            .data()
            .join("containers/before/config.json")
            .exists()
    );
    let done = cofferdam.run(["run", "--rm", "--name", "before", busybox, "true"]);
    assert_eq!(done.code, 0, "{done:?}");
    cofferdam.assert_nothing_left();
}

#[test]
fn a_removal_that_is_killed_is_finished_by_the_next() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let busybox = cofferdam.busybox();
    for (number, delay) in [2, 8, 15, 25, 40, 60].into_iter().enumerate() {
        let name = format!("victim{number}");
        let script = "mkdir -p /a/b/c; for n in $(seq 300); do echo $n > /a/b/c/$n; done";
        cofferdam.ok(["run", "-d", "--name", &name, busybox, "sh", "-c", script]);
        cofferdam.wait_for_status(&name, "stopped");
        let removing = cofferdam.start(["rm", "-f", &name]);
        std::thread::sleep(Duration::from_millis(delay));
        removing.signal(9);
        let _ended = removing.finish(LIMIT);
        cofferdam.ok(["rm", "-f", &name]);
    }
    cofferdam.assert_nothing_left();
}
