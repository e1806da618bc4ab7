//! Limits of bandwidth.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use harness::{Cofferdam, Namespaces};

use crate::frames::bundle;
use crate::pair;

const RATES: &str =
    r#"allowed_annotations = ["io.cofferdam.network.rx_rate", "io.cofferdam.network.tx_rate"]"#;
/// At 8 Mbit/s that takes a second.
const MEBIBYTE: usize = 1 << 20;

/// How long 4 MiB take to the container and from it.
fn times(cofferdam: &Cofferdam, namespaces: &Namespaces, rate: Option<&str>) -> [Duration; 2] {
    let bundle = bundle(cofferdam, namespaces, &[], |config| {
        if let Some(rate) = rate {
            for name in ["rx_rate", "tx_rate"] {
                config["annotations"][format!("io.cofferdam.network.{name}")] = rate.into();
            }
        }
    });
    crate::frames::detached(cofferdam, &bundle);
    let listener = namespaces
        .inside("b", || TcpListener::bind("0.0.0.0:5000"))
        .expect("a listener");
    let times = std::thread::scope(|scope| {
        let peer = scope.spawn(|| {
            let (mut first, _) = listener.accept().expect("a connection");
            let began = Instant::now();
            first
                .write_all(&vec![1; 4 * MEBIBYTE])
                .expect("all is taken");
            first.shutdown(std::net::Shutdown::Write).expect("an end");
            // That all was taken says little: buffers hold a good part. The other side comes again when it has all.
            let (mut connection, _) = listener.accept().expect("a connection");
            let there = began.elapsed();
            let began = Instant::now();
            let mut all = Vec::new();
            connection.read_to_end(&mut all).expect("all arrives");
            assert_eq!(all.len(), 4 * MEBIBYTE);
            [there, began.elapsed()]
        });
        let script = "nc 10.77.0.1 5000 < /dev/null > /dev/null; head -c 4194304 /dev/zero | nc 10.77.0.1 5000";
        let done = crate::inside(cofferdam, "c", script);
        assert_eq!(done.code, 0, "{done:?}");
        peer.join().expect("a peer")
    });
    cofferdam.ok(["delete", "--force", "c"]);
    times
}

#[test]
fn annotations_slow_both_ways_down() {
    let Some(cofferdam) = Cofferdam::with_config(RATES) else {
        return;
    };
    let namespaces = pair();
    let free = times(&cofferdam, &namespaces, None);
    let slow = times(&cofferdam, &namespaces, Some("8M"));
    for (free, slow) in free.into_iter().zip(slow) {
        // 33.6 Mbit at 8 Mbit/s; the first 128 KiB go at once, and who measures may be late.
        assert!(slow > Duration::from_secs(3), "{slow:?}");
        assert!(free < slow, "{free:?} without a limit, {slow:?} with one");
    }
    let left = namespaces.traits("a");
    assert!(!left.contains("tbf"), "{left}");
}

#[test]
fn annotations_count_only_where_they_are_allowed() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let namespaces = pair();
    for (name, value, said) in [
        ("io.cofferdam.network.rx_rate", "8M", "allowed_annotations"),
        (
            "io.cofferdam.network.speed",
            "8M",
            "io.cofferdam.network.speed",
        ),
    ] {
        let bundle = bundle(&cofferdam, &namespaces, &[], |config| {
            config["annotations"] = serde_json::json!({ name: value });
        });
        let refused = cofferdam.run(["run", "--bundle", &bundle, "c"]);
        assert!(
            refused.code != 0 && refused.stderr.contains(said),
            "{refused:?}"
        );
    }
    cofferdam.assert_nothing_left();
}
