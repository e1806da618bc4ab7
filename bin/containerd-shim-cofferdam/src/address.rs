//! Where a shim listens: one socket for each group of containers.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Where containerd looks for the sockets of shims, whatever its own state directory is.
const FOLDER: &str = "/run/containerd/s";

/// Annotations whose value is the group a container belongs to, in the order that containerd's runc shim asks for them;
/// then CRI-O's.
const GROUPS: [&str; 3] = [
    "io.containerd.runc.v2.group",
    "io.kubernetes.cri.sandbox-id",
    "io.kubernetes.cri-o.SandboxID",
];

/// The file of a bundle that names the socket: containerd finds the shim again by it when it is restarted.
pub const FILE: &str = "address";

/// The group of a container: its pod's, or its own.
pub fn group<'a>(id: &'a str, annotations: Option<&'a HashMap<String, String>>) -> &'a str {
    let named = |name: &&str| annotations.and_then(|annotations| annotations.get(*name));
    GROUPS
        .iter()
        .find_map(named)
        .filter(|group| !group.is_empty())
        .map_or(id, String::as_str)
}

/// The socket of a group; `folder` where containerd wants sockets, if it says.
pub fn socket(containerd: &str, namespace: &str, group: &str, folder: Option<&str>) -> PathBuf {
    let name = Path::new(containerd).join(namespace).join(group);
    let digest = Sha256::digest(name.as_os_str().as_encoded_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Path::new(folder.unwrap_or(FOLDER)).join(hex)
}

/// The form containerd takes it in.
pub fn url(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}

/// Whether a shim listens there.
pub fn answers(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// Writes it into a bundle, whole or not at all.
pub fn write(bundle: &Path, socket: &Path) -> io::Result<()> {
    let draft = bundle.join(".address");
    fs::write(&draft, url(socket))?;
    fs::rename(&draft, bundle.join(FILE))
}

/// The socket that a bundle's file names.
pub fn read(bundle: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(bundle.join(FILE)).ok()?;
    Some(PathBuf::from(text.trim().strip_prefix("unix://")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_one_socket_and_a_container_its_own() {
        let annotations = HashMap::from([(GROUPS[1].to_owned(), "pod".to_owned())]);
        assert_eq!(group("c", Some(&annotations)), "pod");
        assert_eq!(group("c", None), "c");
        let empty = HashMap::from([(GROUPS[1].to_owned(), String::new())]);
        assert_eq!(group("c", Some(&empty)), "c");
        let socket = |id| socket("/run/containerd/containerd.sock", "default", id, None);
        assert_ne!(socket("a"), socket("b"));
        // As containerd's own library computes it.
        let name = "0ddfbd72d02b3551e75f3a0ed90b9965b533401be618f43a568bc522764e0ad0";
        assert_eq!(socket("123"), Path::new(FOLDER).join(name));
    }

    #[test]
    fn the_file_comes_back() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(read(bundle.path()), None);
        write(bundle.path(), Path::new("/run/x")).unwrap();
        assert_eq!(read(bundle.path()), Some(PathBuf::from("/run/x")));
    }
}
