//! Networks that change while a container runs.

use std::fs;

use harness::{Cofferdam, wait_until};

use crate::{LIMIT, background, expect, pair};

#[test]
fn interfaces_come_and_go() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let namespaces = pair();
    background(&cofferdam, &namespaces, "c", &[]);
    // Twice: a card that was put away is taken again.
    for number in [1, 2] {
        namespaces.connect(("a", "eth1"), ("b", "peer1"));
        namespaces.ip("b", &format!("addr add 10.78.{number}.1/24 dev peer1"));
        namespaces.ip("a", &format!("addr add 10.78.{number}.2/24 dev eth1"));
        namespaces.ip("a", &format!("route add 10.80.0.0/16 via 10.78.{number}.1"));
        expect(
            &cofferdam,
            "c",
            &format!(
                "ip route | grep -q '10.80.0.0/16 via 10.78.{number}.1 dev eth1' && ping -c 1 -W 5 10.78.{number}.1"
            ),
        );
        expect(&cofferdam, "c", "ping -c 1 -W 5 10.77.0.1");
        namespaces.ip("a", "link delete eth1");
        expect(
            &cofferdam,
            "c",
            "! ip link show eth1 2>/dev/null && ! ip route | grep 10.80",
        );
    }
    expect(&cofferdam, "c", "ping -c 1 -W 5 10.77.0.1");
}

#[test]
fn addresses_routes_names_and_states_are_followed() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let namespaces = pair();
    background(&cofferdam, &namespaces, "c", &[]);
    namespaces.ip("b", "addr add 10.79.0.1/24 dev peer0");
    namespaces.ip("a", "addr add 10.79.0.2/24 dev eth0");
    expect(&cofferdam, "c", "ping -c 1 -W 5 -I 10.79.0.2 10.79.0.1");
    namespaces.ip("a", "addr delete 10.79.0.2/24 dev eth0");
    expect(&cofferdam, "c", "! ip addr | grep -q 10.79.0.2");
    namespaces.ip("a", "route add 10.81.0.0/16 via 10.77.0.1");
    expect(
        &cofferdam,
        "c",
        "ip route | grep -q '10.81.0.0/16 via 10.77.0.1'",
    );
    namespaces.ip("a", "route delete 10.81.0.0/16");
    expect(&cofferdam, "c", "! ip route | grep -q 10.81");
    namespaces.ip("a", "link set eth0 mtu 1280");
    expect(&cofferdam, "c", "ip link show eth0 | grep -q 'mtu 1280'");
    namespaces.ip("a", "link set eth0 address 02:00:00:00:00:77");
    expect(
        &cofferdam,
        "c",
        "ip link show eth0 | grep -q 02:00:00:00:00:77 && ping -c 1 -W 5 10.77.0.1",
    );
    namespaces.ip("a", "link set eth0 down");
    expect(&cofferdam, "c", "! ip link show eth0 | grep -q UP");
    namespaces.ip("a", "link set eth0 name net7");
    namespaces.ip("a", "link set net7 up");
    expect(
        &cofferdam,
        "c",
        "ip link show net7 | grep -q UP && ping -c 1 -W 5 10.77.0.1",
    );
}

#[test]
fn a_container_keeps_what_it_has_set_up_itself() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let namespaces = pair();
    let bundle = crate::frames::bundle(&cofferdam, &namespaces, &["CAP_NET_ADMIN"], |_| {});
    crate::frames::detached(&cofferdam, &bundle);
    expect(
        &cofferdam,
        "c",
        "ip link add mine type dummy 2>/dev/null; ip addr add 10.90.0.1/24 dev lo && ip route add 10.91.0.0/16 dev lo",
    );
    namespaces.ip("a", "route add 10.81.0.0/16 via 10.77.0.1");
    expect(&cofferdam, "c", "ip route | grep -q 10.81");
    expect(
        &cofferdam,
        "c",
        "ip route | grep -q 10.91 && ip addr | grep -q 10.90.0.1",
    );
}

#[test]
fn an_interface_too_many_is_told_and_harms_nothing() {
    let Some(cofferdam) = Cofferdam::with_config("spare_network_cards = 0") else {
        return;
    };
    let namespaces = pair();
    background(&cofferdam, &namespaces, "c", &[]);
    namespaces.connect(("a", "eth1"), ("b", "peer1"));
    let told = wait_until(LIMIT, || cofferdam.log().contains("spare_network_cards"));
    assert!(told, "{}", cofferdam.log());
    expect(
        &cofferdam,
        "c",
        "ping -c 1 -W 5 10.77.0.1 && ! ip link show eth1 2>/dev/null",
    );
    // Six at the start are more than a machine has room for.
    cofferdam.ok(["rm", "-f", "c"]);
    for number in 2..6 {
        namespaces.connect(
            ("a", &format!("eth{number}")),
            ("b", &format!("peer{number}")),
        );
    }
    let net = format!("ns:{}", namespaces.path("a").display());
    let refused = cofferdam.run(["run", "--rm", "--net", &net, cofferdam.busybox(), "true"]);
    assert!(refused.stderr.contains("5 network cards"), "{refused:?}");
    cofferdam.assert_nothing_left();
}

#[test]
fn routers_are_heard_by_the_namespace_alone() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let namespaces = pair();
    background(&cofferdam, &namespaces, "c", &[]);
    let advertisement =
        crate::frames::router_advertisement(&namespaces.ip("b", "-o link show peer0"));
    let heard = wait_until(LIMIT, || {
        crate::frames::send(&namespaces, "b", "peer0", &advertisement);
        namespaces
            .ip("a", "-6 addr show dev eth0")
            .contains("fd55:")
    });
    assert!(heard, "{}", namespaces.ip("a", "-6 addr show dev eth0"));
    // The address that the namespace has made of it is the guest's, too, and no other.
    expect(&cofferdam, "c", "ip -6 addr show dev eth0 | grep -q fd55:");
    let own = namespaces.ip("a", "-6 -o addr show dev eth0");
    let address = own
        .split_whitespace()
        .find(|word| word.starts_with("fd55:"))
        .expect("an address")
        .to_owned();
    expect(
        &cofferdam,
        "c",
        &format!("ip -6 addr show dev eth0 | grep fd55: | grep -q '{address}'"),
    );
    let settings = crate::inside(
        &cofferdam,
        "c",
        "cat /proc/sys/net/ipv6/conf/eth0/accept_ra",
    );
    assert_eq!(settings.stdout.trim(), "0");
    assert!(fs::metadata(namespaces.path("a")).is_ok());
}
