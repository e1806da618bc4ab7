//! Processes of a sandbox that are killed: the container is seen as stopped, and `delete` finds nothing left.

use harness::{Actors, Cofferdam, VMM, wait_until};

use crate::bundle::{LIMIT, SLEEP, bundle, create};

/// Who is killed.
const VICTIMS: [&str; 4] = ["driver", "proxy", "vmm", "file server"];

fn pid(actors: &Actors, victim: &str) -> i32 {
    match victim {
        "driver" => actors.driver,
        "proxy" => actors.proxy,
        "vmm" => actors.helper(VMM).expect("a VMM"),
        _ => actors.helper("cofferdam-fs").expect("a file server"),
    }
}

/// Each victim in turn, of a container in a state that `prepare` brings about.
fn each_victim(prepare: impl Fn(&Cofferdam, &str)) {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let bundle = bundle(&cofferdam, "b", &SLEEP);
    for (number, victim) in VICTIMS.into_iter().enumerate() {
        let id = format!("c{number}");
        create(&cofferdam, &bundle, &id);
        prepare(&cofferdam, &id);
        let actors = cofferdam.actors(&id);
        cofferdam.kill9(pid(&actors, victim));
        let ended = wait_until(LIMIT, || {
            cofferdam.status(&id).as_deref() == Some("stopped")
        });
        assert!(
            ended,
            "{victim} killed: {id} is {:?}\n{}",
            cofferdam.status(&id),
            cofferdam.log()
        );
        let refused = cofferdam.run(["exec", &id, "true"]);
        assert!(
            refused.code != 0 && refused.stderr.contains("stopped"),
            "{victim}: {refused:?}"
        );
        let deleted = cofferdam.run(["delete", &id]);
        assert_eq!(deleted.code, 0, "{victim}: {deleted:?}");
        let again = cofferdam.run(["delete", &id]);
        assert!(
            again.code != 0 && again.stderr.contains("does not exist"),
            "{victim}: {again:?}"
        );
        assert_eq!(cofferdam.run(["delete", "--force", &id]).code, 0);
        cofferdam.assert_nothing_left();
    }
}

#[test]
fn any_process_of_a_created_container() {
    each_victim(|_, _| {});
}

#[test]
fn any_process_of_a_running_container() {
    each_victim(|cofferdam, id| {
        cofferdam.ok(["start", id]);
    });
}

#[test]
fn any_process_of_a_paused_container() {
    each_victim(|cofferdam, id| {
        cofferdam.ok(["start", id]);
        cofferdam.ok(["pause", id]);
    });
}

#[test]
fn any_process_while_execs_are_in_progress() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let bundle = bundle(&cofferdam, "b", &SLEEP);
    for (number, victim) in VICTIMS.into_iter().enumerate() {
        let id = format!("c{number}");
        create(&cofferdam, &bundle, &id);
        cofferdam.ok(["start", &id]);
        let exec = cofferdam.start([
            "exec",
            &id,
            "sh",
            "-c",
            "echo $$ > /running; exec sleep 100000",
        ]);
        let marker = bundle.join("rootfs/running");
        assert!(
            wait_until(LIMIT, || marker.exists()),
            "the exec does not run"
        );
        std::fs::remove_file(&marker).expect("a marker to remove");
        let actors = cofferdam.actors(&id);
        cofferdam.kill9(pid(&actors, victim));
        let done = exec.finish(LIMIT);
        assert_eq!(done.code, 137, "{victim}: {done:?}");
        cofferdam.wait_for_status(&id, "stopped");
        cofferdam.ok(["delete", &id]);
        cofferdam.assert_nothing_left();
    }
}

#[test]
fn a_container_in_the_foreground_ends_with_137() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let bundle = bundle(&cofferdam, "b", &SLEEP);
    for victim in ["driver", "vmm", "file server"] {
        let run = cofferdam.start(["run", "--bundle", crate::bundle::text(&bundle), "c"]);
        cofferdam.wait_for_status("c", "running");
        cofferdam.kill9(pid(&cofferdam.actors("c"), victim));
        let done = run.finish(LIMIT);
        assert_eq!(done.code, 137, "{victim}: {done:?}");
        cofferdam.assert_nothing_left();
    }
}

#[test]
fn the_foreground_command_itself() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let bundle = bundle(&cofferdam, "b", &SLEEP);
    let run = cofferdam.start(["run", "--bundle", crate::bundle::text(&bundle), "c"]);
    cofferdam.wait_for_status("c", "running");
    cofferdam.kill9(run.pid());
    assert_eq!(run.finish(LIMIT).code, 137);
    cofferdam.wait_for_status("c", "stopped");
    cofferdam.ok(["delete", "c"]);
    cofferdam.assert_nothing_left();
}

#[test]
fn all_of_them_at_once() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let bundle = bundle(&cofferdam, "b", &SLEEP);
    create(&cofferdam, &bundle, "c");
    cofferdam.ok(["start", "c"]);
    let actors = cofferdam.actors("c");
    let stop = 19;
    for pid in actors.all() {
        // So that none of them notices how the others go.
        let _ended = rustix::process::Pid::from_raw(pid).map(|pid| {
            rustix::process::kill_process(
                pid,
                rustix::process::Signal::from_named_raw(stop).expect("a signal"),
            )
        });
    }
    for pid in actors.all() {
        cofferdam.kill9(pid);
    }
    cofferdam.wait_for_status("c", "stopped");
    cofferdam.ok(["delete", "c"]);
    cofferdam.assert_nothing_left();
}
