//! `run -d`, and the commands that go with it.

use harness::{Cofferdam, wait_until};

use crate::LIMIT;

#[test]
fn containers_in_the_background_are_listed_logged_entered_stopped_and_removed() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let busybox = cofferdam.busybox();
    let script = "trap 'echo stopping; exit 7' TERM; echo first; echo second >&2; while :; do sleep 0.1; done";
    let id = cofferdam.ok(["run", "-d", busybox, "sh", "-c", script]);
    let id = id.trim();
    assert_eq!(id.len(), 64, "{id}");
    let short = &id[..6];
    assert_eq!(cofferdam.ok(["ps", "-q"]).trim(), id);
    let listed = cofferdam.ok(["ps"]);
    assert!(
        listed.contains(&id[..12]) && listed.contains("Up "),
        "{listed}"
    );

    let logged = wait_until(LIMIT, || {
        let logs = cofferdam.run(["logs", short]);
        logs.stdout == "first\n" && logs.stderr == "second\n"
    });
    assert!(logged, "{:?}", cofferdam.run(["logs", short]));
    let done = cofferdam.run([
        "exec",
        "-u",
        "daemon",
        "-w",
        "/tmp",
        id,
        "sh",
        "-c",
        "id -un; pwd; exit 5",
    ]);
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (5, "daemon\n/tmp\n"),
        "{done:?}"
    );
    let refused = cofferdam.run(["rm", short]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("running"), "{refused:?}");

    let follow = cofferdam.start(["logs", "-f", "--tail", "1", short]);
    assert_eq!(cofferdam.ok(["stop", "-t", "60", short]).trim(), short);
    let followed = follow.finish(LIMIT);
    assert_eq!(followed.stdout, "stopping\n", "{followed:?}");
    assert_eq!(cofferdam.ok(["ps", "-q"]), "");
    let listed = cofferdam.ok(["ps", "-a"]);
    assert!(listed.contains("Exited (7)"), "{listed}");
    let json = cofferdam.ok(["ps", "-a", "--format", "json"]);
    assert!(json.contains("\"exit_code\":7"), "{json}");
    let stamped = cofferdam.ok(["logs", "-t", id]);
    assert!(
        stamped.starts_with("20") && stamped.contains("Z first\n"),
        "{stamped}"
    );
    let used = cofferdam.run(["rmi", "busybox"]);
    assert_eq!(used.code, 1, "{used:?}");
    assert!(used.stderr.contains(id), "{used:?}");

    assert_eq!(cofferdam.ok(["rm", short]).trim(), short);
    cofferdam.assert_nothing_left();
    cofferdam.ok(["rmi", "busybox"]);
    assert_eq!(cofferdam.ok(["images", "-q"]), "");
}

#[test]
fn one_that_ignores_its_stop_signal_is_killed() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let busybox = cofferdam.busybox();
    let script = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
    cofferdam.ok([
        "run", "-d", "--name", "stubborn", busybox, "sh", "-c", script,
    ]);
    let ready = wait_until(LIMIT, || {
        cofferdam.run(["logs", "stubborn"]).stdout == "ready\n"
    });
    assert!(ready);
    let again = cofferdam.run(["run", "-d", "--name", "stubborn", busybox, "true"]);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.stderr.contains("already exists"), "{again:?}");
    cofferdam.ok(["stop", "-t", "1", "stubborn"]);
    let listed = cofferdam.ok(["ps", "-a"]);
    assert!(listed.contains("Exited (137)"), "{listed}");
    cofferdam.ok(["rm", "stubborn"]);
    cofferdam.assert_nothing_left();
}

#[test]
fn a_container_in_the_background_removes_itself() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let name = [
        "run",
        "-d",
        "--rm",
        "--name",
        "short",
        cofferdam.busybox(),
        "sleep",
        "1",
    ];
    assert_eq!(cofferdam.ok(name), "short\n");
    let gone = wait_until(LIMIT, || cofferdam.ok(["ps", "-a", "-q"]).is_empty());
    assert!(gone, "{}", cofferdam.log());
    cofferdam.assert_nothing_left();
}

#[test]
fn names_may_be_cut_short_as_far_as_they_are_clear() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let busybox = cofferdam.busybox();
    for name in ["web", "web-one", "other"] {
        cofferdam.ok(["run", "-d", "--name", name, busybox, "true"]);
    }
    let unclear = cofferdam.run(["rm", "-f", "w"]);
    assert!(unclear.stderr.contains("more of it"), "{unclear:?}");
    cofferdam.ok(["rm", "-f", "web"]);
    cofferdam.ok(["rm", "-f", "w", "o"]);
    let nobody = cofferdam.run(["stop", "nobody"]);
    assert_eq!(nobody.code, 1, "{nobody:?}");
    assert!(nobody.stderr.contains("nobody"), "{nobody:?}");
    cofferdam.assert_nothing_left();
}
