//! Interfaces that come while a machine runs, and its cards, of which there are only so many.

use std::collections::HashSet;

use crate::snapshot::Snapshot;

/// Takes interfaces for which there is no card out of a snapshot, and what leads through them; answers their names. Those
/// that have a card, by their index, keep it.
pub(crate) fn leave_out(snapshot: &mut Snapshot, wired: &[u32], cards: usize) -> Vec<String> {
    let has_card = |index: u32| wired.contains(&index);
    let there = snapshot.interfaces.iter();
    let used = there.filter(|one| has_card(one.index)).count();
    let mut free = cards.saturating_sub(used);
    let mut left_out = Vec::new();
    snapshot.interfaces.retain(|interface| {
        if has_card(interface.index) {
            return true;
        }
        let fits = free > 0;
        if fits {
            free -= 1;
        } else {
            left_out.push(interface.name.clone());
        }
        fits
    });
    let names: HashSet<_> = left_out.iter().map(String::as_str).collect();
    let is_out = |name: &str| names.contains(name);
    let routes = &mut snapshot.routes;
    routes.retain(|route| !route.interface.as_deref().is_some_and(is_out));
    let neighbours = &mut snapshot.neighbours;
    neighbours.retain(|neighbour| !is_out(&neighbour.interface));
    left_out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Interface, Neighbour, Route};

    fn snapshot(indices: &[u32]) -> Snapshot {
        let name = |index: u32| format!("eth{index}");
        Snapshot {
            interfaces: indices
                .iter()
                .map(|&index| Interface {
                    index,
                    name: name(index),
                    mac: [2; 6],
                    mtu: 1500,
                    up: true,
                    arp: true,
                    ipv6: false,
                    addresses: Vec::new(),
                })
                .collect(),
            routes: indices
                .iter()
                .map(|&index| Some(name(index)))
                .chain([None])
                .map(|interface| Route {
                    kind: 1,
                    destination: ([10, 0, 0, 0].into(), 8),
                    interface,
                    gateway: None,
                    source: None,
                    metric: 0,
                    scope: 0,
                    onlink: false,
                    metrics: Vec::new(),
                })
                .collect(),
            neighbours: indices
                .iter()
                .map(|&index| Neighbour {
                    interface: name(index),
                    ip: [10, 0, 0, 1].into(),
                    mac: [2; 6],
                })
                .collect(),
            resolver: false,
        }
    }

    #[test]
    fn those_that_are_connected_stay_and_others_come_as_far_as_cards_go() {
        for (there, wired, cards, expected) in [
            (&[2, 3][..], &[][..], 2, &[][..]),
            (&[2, 3], &[3], 1, &["eth2"]),
            (&[2, 3, 4], &[3], 2, &["eth4"]),
            (&[2], &[], 0, &["eth2"]),
            // A card whose interface has gone is free.
            (&[2, 3], &[2, 9], 2, &[]),
        ] {
            let mut seen = snapshot(there);
            assert_eq!(leave_out(&mut seen, wired, cards), expected);
            let kept: Vec<_> = seen.interfaces.iter().map(|one| one.index).collect();
            assert_eq!(seen, snapshot(&kept), "{there:?}");
        }
    }
}
