//! Users and groups by the names that an image gives them.

use anyhow::{Context as _, Result, bail};

use super::tree::Tree;

/// No real file of users is larger.
const FILE_LIMIT: u64 = 4 << 20;

/// Who a process runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
    /// The user's home, where the image knows the user.
    pub home: Option<String>,
}

struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Reads `USER[:GROUP]`, names or numbers; empty means root. Numbers need not be known. Without a group it is the user's,
/// with the groups that the user is a member of.
pub fn resolve(text: &str, tree: &Tree) -> Result<Identity> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let users = users(&tree.read("/etc/passwd", FILE_LIMIT)?.unwrap_or_default());
    let groups = groups(&tree.read("/etc/group", FILE_LIMIT)?.unwrap_or_default());

    let number = id(user);
    let known = users
        .iter()
        .find(|known| known.name == user)
        .or_else(|| users.iter().find(|known| Some(known.uid) == number));
    let mut identity = match (known, number) {
        (Some(known), _) => Identity {
            uid: known.uid,
            gid: known.gid,
            groups: groups
                .iter()
                .filter(|group| group.gid != known.gid && group.members.contains(&known.name))
                .map(|group| group.gid)
                .collect(),
            home: Some(known.home.clone()).filter(|home| home.starts_with('/')),
        },
        (None, Some(uid)) => Identity {
            uid,
            ..Identity::default()
        },
        (None, None) => {
            bail!("unable to find user {user}: no such user in the container's /etc/passwd")
        }
    };
    if let Some(group) = group {
        let number = id(group);
        identity.gid = groups
            .iter()
            .find(|known| known.name == group)
            .map(|known| known.gid)
            .or(number)
            .with_context(|| {
                format!("unable to find group {group}: no such group in the container's /etc/group")
            })?;
        identity.groups.clear();
    }
    Ok(identity)
}

/// A number that the kernel takes as an id: -1 means none there.
fn id(text: &str) -> Option<u32> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain
        .then(|| text.parse().ok())
        .flatten()
        .filter(|&id| id != u32::MAX)
}

/// passwd(5); lines that are none are skipped.
fn users(text: &str) -> Vec<User> {
    let user = |line: &str| {
        let mut fields = line.split(':');
        Some(User {
            name: name(fields.next()?)?,
            uid: id(fields.nth(1)?)?,
            gid: id(fields.next()?)?,
            home: fields.nth(1)?.to_owned(),
        })
    };
    text.lines().filter_map(user).collect()
}

/// group(5); lines that are none are skipped.
fn groups(text: &str) -> Vec<Group> {
    let group = |line: &str| {
        let mut fields = line.split(':');
        Some(Group {
            name: name(fields.next()?)?,
            gid: id(fields.nth(1)?)?,
            members: fields
                .next()
                .unwrap_or_default()
                .split(',')
                .map(str::to_owned)
                .collect(),
        })
    };
    text.lines().filter_map(group).collect()
}

fn name(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && !text.starts_with(['#', '+', '-'])).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# a comment\nbroken\nweb:x:33:44:w:/srv/web:/bin/sh\n\
                          123:x:7:8::/n:\nbad:x:-1:0::/:\n";
    const GROUP: &str =
        "root:x:0:\nweb:x:44:\naudio:x:29:web,root\nvideo:x:30:other,web\nprimary:x:44:web\n";

    fn tree(files: bool) -> (tempfile::TempDir, Tree) {
        let folder = tempfile::tempdir().unwrap();
        if files {
            std::fs::create_dir(folder.path().join("etc")).unwrap();
            std::fs::write(folder.path().join("etc/passwd"), PASSWD).unwrap();
            std::fs::write(folder.path().join("etc/group"), GROUP).unwrap();
        }
        let tree = Tree::open(&[folder.path().to_owned()]).unwrap();
        (folder, tree)
    }

    #[test]
    fn names_and_numbers_are_resolved() {
        let (_folder, tree) = tree(true);
        for (text, uid, gid, groups) in [
            ("", 0, 0, vec![29]),
            ("root", 0, 0, vec![29]),
            ("web", 33, 44, vec![29, 30]),
            ("33", 33, 44, vec![29, 30]),
            ("web:audio", 33, 29, vec![]),
            ("web:7", 33, 7, vec![]),
            ("web:", 33, 44, vec![29, 30]),
            ("1000", 1000, 0, vec![]),
            ("1000:audio", 1000, 29, vec![]),
            (":29", 0, 29, vec![]),
            ("123", 7, 8, vec![]),
        ] {
            let identity = resolve(text, &tree).unwrap();
            assert_eq!(
                (identity.uid, identity.gid, identity.groups),
                (uid, gid, groups),
                "{text}"
            );
        }
        assert_eq!(
            resolve("web", &tree).unwrap().home.as_deref(),
            Some("/srv/web")
        );
        for text in [
            "nobody",
            "web:nogroup",
            "-1",
            "4294967295",
            "bad",
            "root:4294967296",
            "broken",
        ] {
            assert!(resolve(text, &tree).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_need_no_files() {
        let (_folder, tree) = tree(false);
        assert_eq!(
            resolve("5:6", &tree).unwrap(),
            Identity {
                uid: 5,
                gid: 6,
                groups: vec![],
                home: None
            }
        );
        assert!(resolve("root", &tree).is_err());
        assert_eq!(resolve("", &tree).unwrap(), Identity::default());
    }
}
