//! Home folders, read from a container's own /etc/passwd.
//!
//! The C library must not be asked: it would load whatever library the image's nsswitch.conf
//! names, with the rights of the helper.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};

/// More of a passwd file is not looked at.
const PASSWD_MAX: u64 = 1024 * 1024;

/// The home folder of `uid` according to the file `path` below `root`; `/` if it says none, as
/// runc has it.
pub(crate) fn home_in(root: impl AsFd, path: &Path, uid: u32) -> String {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
        .ok()
        .and_then(|file| home_of(&file, uid))
        .unwrap_or_else(|| "/".to_owned())
}

fn home_of(place: &OwnedFd, uid: u32) -> Option<String> {
    // The image decides what is there; to open a device or a pipe can already do something.
    if FileType::from_raw_mode(fstat(place).ok()?.st_mode) != FileType::RegularFile {
        return None;
    }
    let file = File::open(format!("/proc/self/fd/{}", place.as_raw_fd())).ok()?;
    let mut reader = BufReader::new(file.take(PASSWD_MAX));
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
        // name:password:uid:gid:comment:home:shell
        let Ok(text) = std::str::from_utf8(&line) else {
            continue;
        };
        let mut fields = text.trim_end().split(':');
        if fields.nth(2).and_then(|field| field.parse().ok()) == Some(uid) {
            return fields
                .nth(2)
                .filter(|home| !home.is_empty())
                .map(str::to_owned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_only_what_is_below_the_root() {
        let root = tempfile::tempdir().expect("a folder");
        let etc = root.path().join("etc");
        std::fs::create_dir(&etc).expect("etc");
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbad line\nweb:x:33:33::/var/www:/bin/sh\n";
        std::fs::write(etc.join("passwd"), passwd).expect("passwd");
        let home = |uid| {
            let root = File::open(root.path()).expect("open");
            home_in(root, Path::new("/etc/passwd"), uid)
        };
        assert_eq!(home(0), "/root");
        assert_eq!(home(33), "/var/www");
        assert_eq!(home(1), "/");

        std::fs::remove_file(etc.join("passwd")).expect("remove");
        std::os::unix::fs::symlink("/../../../../etc/real", etc.join("passwd")).expect("link");
        std::fs::write(etc.join("real"), "a:x:1:1::/inside:\n").expect("real");
        assert_eq!(home(1), "/inside");
    }
}
