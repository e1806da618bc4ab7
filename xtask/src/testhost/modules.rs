//! Which modules a module needs, from the list that depmod makes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The files of these modules and of what they need, each behind what it needs. `folder` has the modules of one kernel
/// in a folder with its version's name.
pub fn in_order(folder: &Path, wanted: &[&str]) -> Result<Vec<PathBuf>> {
    let mut kernels = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let kernel = match (kernels.next(), kernels.next()) {
        (Some(kernel), None) => kernel.with_context(|| format!("read {}", folder.display()))?,
        _ => bail!(
            "{} does not have the modules of one kernel",
            folder.display()
        ),
    };
    let list = kernel.path().join("modules.dep");
    let text = fs::read_to_string(&list).with_context(|| format!("read {}", list.display()))?;
    let mut files = Vec::new();
    for name in wanted {
        let (file, needed) = find(&text, name)
            .with_context(|| format!("{} has no module {name}", list.display()))?;
        // Those that it needs are listed from the one that is loaded last to the one that is loaded first.
        for file in needed.split_whitespace().rev().chain([file]) {
            let path = kernel.path().join(file);
            if !files.contains(&path) {
                files.push(path);
            }
        }
    }
    Ok(files)
}

fn find<'a>(list: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    list.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(file, _)| {
            file.rsplit('/')
                .next()
                .and_then(|file| file.strip_suffix(".ko"))
                .is_some_and(|module| module.replace('-', "_") == name)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = folder.path().join("6.1");
        fs::create_dir(&kernel).unwrap();
        fs::write(
            kernel.join("modules.dep"),
            "kernel/a-b.ko: kernel/ring.ko kernel/base.ko\nkernel/c.ko: kernel/base.ko\nkernel/base.ko:\n",
        )
        .unwrap();
        let files = in_order(folder.path(), &["a_b", "c"]).unwrap();
        let names: Vec<_> = files
            .iter()
            .map(|file| file.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(names, ["base.ko", "ring.ko", "a-b.ko", "c.ko"]);
        assert!(in_order(folder.path(), &["d"]).is_err());
    }
}
