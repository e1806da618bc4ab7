//! What the host's kernel sees of guests: its tracepoints of KVM (Linux `Documentation/trace`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::guest;

/// A guest that has not got there by then never will.
const LIMIT: Duration = Duration::from_secs(120);

/// Counts exits by their reason.
const COUNT: &str = "hist:keys=exit_reason";

/// Tracing, as long as it lives.
pub struct Trace {
    folder: PathBuf,
    pipe: File,
    text: String,
}

impl Trace {
    /// Turns it on.
    pub fn start() -> Result<Self> {
        let folder = PathBuf::from("/sys/kernel/tracing");
        if !folder.join("trace_pipe").exists() {
            rustix::mount::mount(
                "tracefs",
                &folder,
                "tracefs",
                rustix::mount::MountFlags::empty(),
                None,
            )
            .context("mount tracefs")?;
        }
        let trace = Self {
            pipe: File::open(folder.join("trace_pipe")).context("open the trace")?,
            folder,
            text: String::new(),
        };
        trace.write("trace", "")?;
        trace.write(
            "events/kvm/kvm_cpuid/filter",
            &format!("function=={:#x}", guest::LEAF),
        )?;
        trace.write("events/kvm/kvm_cpuid/enable", "1")?;
        trace.write("tracing_on", "1")?;
        Ok(trace)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.folder.join(file);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Begins a measurement: exits count from now on, and this is the time that others are measured from.
    pub fn begin(&mut self) -> Result<Duration> {
        self.write("events/kvm/kvm_exit/trigger", COUNT)?;
        self.mark("begin")
    }

    /// The time now.
    pub fn mark(&mut self, word: &str) -> Result<Duration> {
        let word = format!("monitors: {word}");
        self.write("trace_marker", &word)?;
        self.wait(&word)
    }

    /// When the guest's first program was there.
    pub fn init(&mut self) -> Result<Duration> {
        self.wait("kvm_cpuid: ")
    }

    /// Ends a measurement: how often guests were left, by reason.
    pub fn end(&self) -> Result<BTreeMap<String, u64>> {
        let path = self.folder.join("events/kvm/kvm_exit/hist");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        self.write("events/kvm/kvm_exit/trigger", &format!("!{COUNT}"))?;
        // { exit_reason:        114 } hitcount:        225
        let lines = text.lines().filter_map(|line| {
            let (reason, count) = line.split_once('}')?;
            let reason = reason.split_once("exit_reason:")?.1.trim();
            let count = count.split_once("hitcount:")?.1.trim();
            Some((name(reason).to_owned(), count.parse().ok()?))
        });
        Ok(lines.collect())
    }

    /// The time of the next event whose line has this.
    fn wait(&mut self, word: &str) -> Result<Duration> {
        let end = Instant::now() + LIMIT;
        loop {
            while let Some((line, rest)) = self.text.split_once('\n') {
                let found = line.contains(word).then(|| stamp(line)).flatten();
                self.text = rest.to_owned();
                if let Some(time) = found {
                    return Ok(time);
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).context("a time")?;
            if poll(&mut [PollFd::new(&self.pipe, PollFlags::IN)], Some(&left))? == 0 {
                bail!("no event with {word:?} within {LIMIT:?}");
            }
            let mut bytes = [0; 4096];
            let count = self.pipe.read(&mut bytes).context("read the trace")?;
            self.text
                .push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // Nobody can do anything about what is not turned off.
        let _ = self.write("events/kvm/kvm_exit/trigger", &format!("!{COUNT}"));
        let _ = self.write("events/kvm/kvm_cpuid/enable", "0");
    }
}

/// `program-123     [000] .....     3.404123: event: …`
fn stamp(line: &str) -> Option<Duration> {
    let time = line.split_ascii_whitespace().find_map(|word| {
        let time = word.strip_suffix(':')?;
        time.contains('.')
            .then(|| time.parse::<f64>().ok())
            .flatten()
    });
    Duration::try_from_secs_f64(time?).ok()
}

/// What AMD's processors call an exit (AMD64 APM volume 2, appendix C); Intel's are left as numbers.
fn name(reason: &str) -> &str {
    match reason {
        "4" => "read of cr4",
        "16" => "write of cr0",
        "20" => "write of cr4",
        "96" => "interrupt",
        "100" => "interrupt window",
        "114" => "cpuid",
        "120" => "halt",
        "123" => "port",
        "124" => "msr",
        "129" => "hypercall",
        "1024" => "memory",
        other => other,
    }
}
