//! Dependencies point downwards only: bin → sandbox → backend → vmm; guest and protocol know nothing
//! of the host's side.

use std::path::Path;

use anyhow::{Result, bail};

use crate::places::Places;

use super::graph::Graph;

/// A part of the tree and the parts it may use. The longest matching folder counts; a folder covers
/// what is below it.
struct Layer {
    folder: &'static str,
    may_use: &'static [&'static str],
}

/// From the top to the bottom.
const LAYERS: [Layer; 19] = [
    Layer {
        folder: "xtask",
        may_use: &[],
    },
    // Tests and measurements drive the product from outside, or test a library's public interface.
    Layer {
        folder: "testing",
        may_use: &["testing", "sandbox", "backend", "vmm", "protocol", "guest"],
    },
    // Knows an OCI runtime only by its command's name.
    Layer {
        folder: "testing/conformance",
        may_use: &[],
    },
    Layer {
        folder: "examples",
        may_use: &["sandbox"],
    },
    Layer {
        folder: "fuzz",
        may_use: &["sandbox", "backend", "vmm", "protocol", "guest"],
    },
    Layer {
        folder: "bin",
        may_use: &["sandbox", "backend", "protocol", "observability"],
    },
    // The monitor of one machine knows nothing of what is above.
    Layer {
        folder: "bin/vmm",
        may_use: &["vmm"],
    },
    // The guest's program: nothing of the host's side.
    Layer {
        folder: "bin/agent",
        may_use: &["guest", "protocol"],
    },
    // The file server serves one folder, confines itself, and knows nothing of sandboxes.
    Layer {
        folder: "bin/fs",
        may_use: &["backend/process", "sandbox/share"],
    },
    Layer {
        folder: "sandbox",
        may_use: &["sandbox", "backend", "protocol", "observability"],
    },
    // The host's side of a network: knows nothing of virtual machines either.
    Layer {
        folder: "sandbox/network",
        may_use: &["protocol"],
    },
    // Content on disk: knows nothing of virtual machines.
    Layer {
        folder: "sandbox/image",
        may_use: &[],
    },
    Layer {
        folder: "backend",
        may_use: &["backend", "vmm/control", "observability"],
    },
    Layer {
        folder: "backend/api",
        may_use: &["backend/process"],
    },
    // Child processes and their confinement: below everything that starts any.
    Layer {
        folder: "backend/process",
        may_use: &[],
    },
    Layer {
        folder: "vmm",
        may_use: &["vmm"],
    },
    Layer {
        folder: "guest",
        may_use: &["guest", "protocol"],
    },
    Layer {
        folder: "protocol",
        may_use: &[],
    },
    Layer {
        folder: "observability",
        may_use: &[],
    },
];

/// Crates that only one part may use, with the reason.
const CONFINED: [(&str, &[&str], &str); 1] = [(
    "virtiofsd",
    // The test host serves files to a machine that is as trusted as whoever runs tests in it.
    &["bin/fs", "testing/testhost"],
    "it brings its own line of rust-vmm crates, and file access belongs in a confined process",
)];

/// Checks every package of the workspace.
pub fn check(places: &Places) -> Result<()> {
    let graph = Graph::read(places)?;
    let members = graph.members()?;
    let mut faults = Vec::new();
    let mut edges = 0;
    for (folder, package) in &members {
        let Some(layer) = layer(folder) else {
            faults.push(format!(
                "{} lies in no layer: add it to xtask/src/policy/layers.rs",
                folder.display()
            ));
            continue;
        };
        for below in graph.direct(package)? {
            if let Some((_, owners, reason)) = CONFINED.iter().find(|(name, owners, _)| {
                below.name == *name && !owners.iter().any(|owner| folder.starts_with(owner))
            }) {
                faults.push(format!(
                    "{} uses {}, which only {owners:?} may use: {reason}",
                    folder.display(),
                    below.name
                ));
            }
            if below.source.is_some() {
                continue;
            }
            edges += 1;
            let used = graph.folder(below)?;
            if !allows(layer, &used) {
                faults.push(format!(
                    "{} may not use {}: allowed are {:?}",
                    folder.display(),
                    used.display(),
                    layer.may_use
                ));
            }
        }
    }
    if !faults.is_empty() {
        bail!(
            "dependencies point the wrong way:\n  {}",
            faults.join("\n  ")
        );
    }
    println!(
        "layers: {} packages, {edges} dependencies between them, all downwards",
        members.len()
    );
    Ok(())
}

fn layer(folder: &Path) -> Option<&'static Layer> {
    LAYERS
        .iter()
        .filter(|layer| folder.starts_with(layer.folder))
        .max_by_key(|layer| layer.folder.len())
}

fn allows(layer: &Layer, used: &Path) -> bool {
    // Each package has a layer of its own unless a table entry covers several; the programs in bin/
    // never use each other because bin/ is in no list.
    layer
        .may_use
        .iter()
        .any(|allowed| used.starts_with(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(from: &str, to: &str) -> bool {
        allows(layer(Path::new(from)).unwrap(), Path::new(to))
    }

    #[test]
    fn the_way_down_is_allowed_and_the_way_up_is_not() {
        for (from, to) in [
            ("bin/cofferdam", "sandbox"),
            ("sandbox", "backend/api"),
            ("backend/qemu", "backend/api"),
            ("bin/agent", "guest"),
            ("guest", "protocol"),
        ] {
            assert!(allowed(from, to), "{from} -> {to}");
        }
        for (from, to) in [
            ("sandbox", "bin/cofferdam"),
            ("bin/cofferdam", "bin/fs"),
            ("backend/api", "sandbox"),
            ("backend/api", "backend/qemu"),
            ("guest", "sandbox"),
            ("guest", "backend/api"),
            ("bin/agent", "sandbox"),
            ("bin/agent", "backend/api"),
            ("protocol", "guest"),
            ("sandbox/image", "sandbox"),
            ("testing/conformance", "sandbox"),
            ("sandboxes", "backend/api"),
        ] {
            let layer = layer(Path::new(from));
            assert!(
                layer.is_none_or(|layer| !allows(layer, Path::new(to))),
                "{from} -> {to}"
            );
        }
    }
}
