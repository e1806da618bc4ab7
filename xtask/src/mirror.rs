//! Where Debian's packages come from.

use std::env;
use std::process::Command;

use crate::command;

/// Names another mirror.
const VARIABLE: &str = "COFFERDAM_DEBIAN_MIRROR";

/// Debian's own address, for machines whose package sources are not Debian's.
const PUBLIC: &str = "http://deb.debian.org/debian";

/// The mirror that the variable names, else the one that this machine has its own packages from.
pub fn debian() -> String {
    env::var(VARIABLE)
        .ok()
        .or_else(of_this_machine)
        .unwrap_or_else(|| PUBLIC.to_owned())
}

fn of_this_machine() -> Option<String> {
    let listed = command::text(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Origin: Debian",
        "Label: Debian",
        "Created-By: Packages",
    ]));
    first(&listed.ok()?)
}

fn first(listed: &str) -> Option<String> {
    let address = listed.lines().next()?.trim().trim_end_matches('/');
    (!address.is_empty()).then(|| address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::first;

    #[test]
    fn the_first_address_counts() {
        assert_eq!(
            first("http://a.example/debian/\nhttp://b.example/\n").as_deref(),
            Some("http://a.example/debian")
        );
        assert_eq!(first(""), None);
    }
}
