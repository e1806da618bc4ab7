//! Things that engines hand over and that do not work: the half-made container is undone.

use harness::Cofferdam;

use crate::bundle::{SLEEP, assert_refused, bundle, bundle_with, call, create, text};

#[test]
fn a_pid_file_that_cannot_be_written_undoes_create() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let bundle = bundle(&cofferdam, "b", &SLEEP);
    let done = call(
        &cofferdam,
        &[
            "create",
            "--bundle",
            text(&bundle),
            "--pid-file",
            "/nonexistent/pid",
            "c",
        ],
    );
    assert_refused(&cofferdam, &done, &["pid file", "/nonexistent/pid"]);
}

#[test]
fn a_console_socket_without_listener_undoes_create() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let bundle = bundle_with(&cofferdam, "b", &SLEEP, |config| {
        config["process"]["terminal"] = true.into()
    });
    let socket = cofferdam.folder().join("console.sock");
    let args = [
        "create",
        "--bundle",
        text(&bundle),
        "--console-socket",
        text(&socket),
        "c",
    ];
    assert_refused(
        &cofferdam,
        &call(&cofferdam, &args),
        &["console socket", "console.sock"],
    );
    // One that was listened on, and is no more.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
    assert_refused(
        &cofferdam,
        &call(&cofferdam, &args),
        &["console socket", "console.sock"],
    );
}

#[test]
fn a_damaged_record_is_named_and_can_be_removed() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let bundle = bundle(&cofferdam, "b", &SLEEP);
    for damage in ["{", "", "{\"id\": 3}"] {
        create(&cofferdam, &bundle, "c");
        cofferdam.ok(["start", "c"]);
        std::fs::write(cofferdam.root().join("c/state.json"), damage).expect("a damaged record");
        for command in [
            &["state", "c"][..],
            &["start", "c"],
            &["exec", "c", "true"],
            &["kill", "c"],
            &["delete", "c"],
        ] {
            let done = cofferdam.run(command);
            assert!(
                done.code != 0 && done.stderr.contains("c/state.json"),
                "{command:?}: {done:?}"
            );
        }
        cofferdam.ok(["delete", "--force", "c"]);
        cofferdam.assert_nothing_left();
    }
}

#[test]
fn a_damaged_record_does_not_hide_the_others() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let bundle = bundle(&cofferdam, "b", &SLEEP);
    create(&cofferdam, &bundle, "good");
    let bad = cofferdam.root().join("bad");
    std::fs::create_dir(&bad).expect("a folder");
    std::fs::write(bad.join("state.json"), "{").expect("a damaged record");
    let list = cofferdam.run(["list"]);
    assert!(list.stdout.contains("good"), "{list:?}");
    assert!(
        list.stderr.contains("bad/state.json") || cofferdam.log().contains("bad/state.json"),
        "{list:?}"
    );
    cofferdam.ok(["delete", "--force", "bad"]);
    cofferdam.ok(["delete", "--force", "good"]);
    cofferdam.assert_nothing_left();
}
