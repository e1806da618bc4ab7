//! Having the host's kernel say that a container was killed for want of memory.
//!
//! Engines learn it from the control group on the host: an eventfd on version 1's `memory.oom_control`, changes of version
//! 2's `memory.events`. The kernel that has killed is the guest's, so the host's has nothing to say. It is given a victim: in
//! the container's group, limited to little more than it uses, a process of ours wants more than that. It is the one to be
//! killed, because nothing else there has its `oom_score_adj`.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backend_process::{Confinement, Exit, Program};

use super::{CgroupError, join, system};

/// What is left to everything else in the group meanwhile. The victim wants more.
const ROOM: u64 = 8 << 20;

/// What a victim wants.
pub const WANTED: usize = 64 << 20;

/// A victim's `oom_score_adj`, the highest there is.
const MOST: i32 = 1000;

/// How long all of it may take: somebody waits to hear of the container's end.
const DEADLINE: Duration = Duration::from_secs(2);

/// The kernel's signal.
const KILLED: Exit = Exit::Signal(9);

/// Has the kernel kill a victim in these groups; answers whether it did. `args` are those that make this program a victim,
/// which waits for the end of its stdin. Nobody else may be in want of memory there: no machine may run in them.
///
/// # Errors
/// When the groups cannot be changed, or the victim cannot be started.
pub async fn announce(folders: &[PathBuf], args: &[OsString]) -> Result<bool, CgroupError> {
    let Some(group) = Group::of(folders) else {
        return Ok(false);
    };
    if group.may_hurt_others()? {
        return Ok(false);
    }
    let ourselves = Path::new("/proc/self/exe");
    let (stdin, go) = std::io::pipe().map_err(system("start a process for", group.folder))?;
    let mut victim = Program {
        path: ourselves.to_owned(),
        args: args.to_vec(),
        stdin: Some(OwnedFd::from(stdin)),
        stderr: None,
        inherited: Vec::new(),
        network: None,
        groups: Vec::new(),
        confinement: Confinement::default(),
    }
    .spawn()
    .map_err(system("start a process for", group.folder))?;
    let pid = victim.pid().unwrap_or_default();
    let score = PathBuf::from(format!("/proc/{pid}/oom_score_adj"));
    fs::write(&score, MOST.to_string()).map_err(system("write", &score))?;
    join(&[group.folder.to_owned()], pid.cast_signed())?;
    // Given back in the opposite order, and only when the victim is gone.
    let mut changed = Vec::new();
    for (file, value) in group.tight()? {
        changed.push(Changed::set(file, &value)?);
    }
    drop(go);
    let ended = tokio::time::timeout(DEADLINE, victim.wait()).await;
    drop(victim);
    drop(changed);
    Ok(matches!(ended, Ok(Ok(KILLED))))
}

/// Takes what a victim takes, unless it is killed.
///
/// # Errors
/// When nobody says when.
pub fn want() -> std::io::Result<()> {
    let mut told = Vec::new();
    std::io::Read::read_to_end(&mut std::io::stdin(), &mut told)?;
    let taken = vec![1_u8; WANTED];
    std::hint::black_box(&taken);
    Ok(())
}

/// The group that accounts for memory.
struct Group<'a> {
    folder: &'a Path,
    limit: &'static str,
    usage: &'static str,
}

impl<'a> Group<'a> {
    fn of(folders: &'a [PathBuf]) -> Option<Self> {
        let files = [
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            ("memory.max", "memory.current"),
        ];
        folders.iter().find_map(|folder| {
            let (limit, usage) = files
                .iter()
                .find(|(limit, _)| folder.join(limit).exists())?;
            Some(Self {
                folder,
                limit,
                usage,
            })
        })
    }

    fn read(&self, name: &str) -> Result<String, CgroupError> {
        let file = self.folder.join(name);
        let text = fs::read_to_string(&file).map_err(system("read", &file))?;
        Ok(text.trim().to_owned())
    }

    /// Whether the kernel would not take the victim alone: it kills groups as a whole here, or nobody, or somebody else is as
    /// good a victim.
    fn may_hurt_others(&self) -> Result<bool, CgroupError> {
        let as_a_whole = self
            .read("memory.oom.group")
            .is_ok_and(|value| value != "0");
        let nobody = self
            .read("memory.oom_control")
            .is_ok_and(|text| text.contains("oom_kill_disable 1"));
        let others = self.read("cgroup.procs")?;
        let rival = others.lines().any(|pid| {
            let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj"));
            score.is_ok_and(|score| score.trim().parse().is_ok_and(|score: i32| score >= MOST))
        });
        Ok(as_a_whole || nobody || rival)
    }

    /// What has to be written where, so that the victim's memory does not fit and is not swapped out.
    fn tight(&self) -> Result<Vec<(PathBuf, String)>, CgroupError> {
        let number = |text: &str| text.parse().unwrap_or(u64::MAX);
        let room = number(&self.read(self.usage)?).saturating_add(ROOM);
        let limit = number(&self.read(self.limit)?).min(room);
        let files = [
            ("memory.swappiness", "0".to_owned()),
            ("memory.swap.max", "0".to_owned()),
            (self.limit, limit.to_string()),
        ];
        let there = files
            .into_iter()
            .map(|(name, value)| (self.folder.join(name), value))
            .filter(|(file, _)| file.exists());
        Ok(there.collect())
    }
}

/// A setting that is put back when this is dropped.
struct Changed {
    file: PathBuf,
    before: String,
}

impl Changed {
    fn set(file: PathBuf, value: &str) -> Result<Self, CgroupError> {
        let before = fs::read_to_string(&file).map_err(system("read", &file))?;
        write(&file, value).map_err(system("write", &file))?;
        Ok(Self {
            before: before.trim().to_owned(),
            file,
        })
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        if let Err(error) = write(&self.file, &self.before) {
            tracing::warn!(%error, file = %self.file.display(), "a control group's setting is not put back");
        }
    }
}

/// In one call, as the kernel wants it, and into a file that is there.
fn write(file: &Path, value: &str) -> std::io::Result<()> {
    fs::File::options()
        .write(true)
        .open(file)?
        .write_all(value.as_bytes())
}
