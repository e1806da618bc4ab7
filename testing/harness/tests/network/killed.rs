//! What is left in a namespace when processes are killed.

use harness::{Cofferdam, VMM, is_alive, wait_until};

use crate::names::Server;
use crate::{LIMIT, background, inside, pair};

#[test]
fn a_killed_driver_leaves_nothing_after_the_next_rm() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let namespaces = pair();
    // So that every kind of filter is there.
    let _server = Server::start(&namespaces, "a");
    for _ in 0..2 {
        background(&cofferdam, &namespaces, "c", &[]);
        let pinged = inside(&cofferdam, "c", "ping -c 1 -W 10 10.77.0.1");
        assert_eq!(pinged.code, 0, "{pinged:?}");
        let actors = cofferdam.actors("c");
        assert!(namespaces.traits("a").contains("clsact"));
        cofferdam.kill9(actors.driver);
        let gone = wait_until(LIMIT, || actors.all().iter().all(|&pid| !is_alive(pid)));
        assert!(gone, "{actors:?}");
        // Taps go with their last descriptor; what was on the engine's interface goes with the container.
        cofferdam.ok(["rm", "-f", "c"]);
        let left = namespaces.traits("a");
        assert!(
            !left.contains("clsact") && !left.contains("cofferdam"),
            "{left}"
        );
    }
    // And the namespace is as good as new for anybody.
    let pinged = namespaces.busybox("a", "ping -c 1 -W 10 10.77.0.1");
    assert_eq!(pinged.code, 0, "{pinged:?}");
    cofferdam.assert_nothing_left();
}

#[test]
fn what_another_has_left_is_taken_over() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let namespaces = pair();
    background(&cofferdam, &namespaces, "c", &[]);
    let actors = cofferdam.actors("c");
    cofferdam.kill9(actors.driver);
    let gone = wait_until(LIMIT, || actors.all().iter().all(|&pid| !is_alive(pid)));
    assert!(gone, "{actors:?}");
    // Without a removal in between.
    background(&cofferdam, &namespaces, "d", &[]);
    let pinged = inside(&cofferdam, "d", "ping -c 1 -W 10 10.77.0.1");
    assert_eq!(pinged.code, 0, "{pinged:?}");
    // The late removal of the first does not touch the second.
    cofferdam.ok(["rm", "-f", "c"]);
    let pinged = inside(&cofferdam, "d", "ping -c 1 -W 10 10.77.0.1");
    assert_eq!(pinged.code, 0, "{pinged:?}");
}

#[test]
fn a_machine_that_is_killed_takes_its_wires_along() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let namespaces = pair();
    background(&cofferdam, &namespaces, "c", &[]);
    let actors = cofferdam.actors("c");
    cofferdam.kill9(actors.helper(VMM).expect("a VMM"));
    cofferdam.wait_for_status("c", "stopped");
    let clean = wait_until(LIMIT, || {
        let left = namespaces.traits("a");
        !left.contains("clsact") && !left.contains("cofferdam")
    });
    assert!(clean, "{}", namespaces.traits("a"));
}

#[test]
fn a_namespace_that_goes_first_harms_nobody() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let namespaces = pair();
    background(&cofferdam, &namespaces, "c", &[]);
    drop(namespaces);
    let lives = inside(&cofferdam, "c", "true");
    assert_eq!(lives.code, 0, "{lives:?}");
    cofferdam.ok(["rm", "-f", "c"]);
    cofferdam.assert_nothing_left();
}
