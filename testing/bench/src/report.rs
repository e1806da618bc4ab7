//! The page that tells what was measured.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use crate::floor;
use crate::host;
use crate::idle::Idle;
use crate::runtime::Times;
use crate::stats::{median, median_ratio};

/// Everything that was measured in one run.
#[derive(Debug)]
pub struct Report {
    pub rounds: u32,
    pub floors: Vec<Duration>,
    /// Name with version, and times; ours first, then ours booted.
    pub runtimes: Vec<(String, Times)>,
    pub idle: Idle,
    /// Whether the host has both cgroup versions.
    pub hybrid: bool,
    /// Load averages before and after.
    pub load: (String, String),
}

/// Name of a row, times of a runtime.
type Row = (&'static str, fn(&Times) -> &[Duration]);

const ROWS: [Row; 5] = [
    ("`run` of `true`, start to exit", |times| &times.run),
    ("`create` and `start`", |times| &times.create_start),
    ("`exec` of `true`", |times| &times.exec),
    ("`delete` of a stopped container", |times| &times.delete),
    ("`delete --force` of a running one", |times| {
        &times.delete_force
    }),
];

impl Report {
    pub fn page(&self) -> String {
        let mut page = String::new();
        // Writing to a string cannot fail.
        let _done = self.write(&mut page);
        page
    }

    fn write(&self, page: &mut String) -> std::fmt::Result {
        page.push_str(METHOD);
        writeln!(page, "## The machine\n\n| | |\n|---|---|")?;
        let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        writeln!(page, "| Date | {date} |")?;
        for (name, value) in host::description() {
            writeln!(page, "| {name} | {value} |")?;
        }
        writeln!(
            page,
            "| Load averages (1, 5, 15 minutes) | {} before, {} after |",
            self.load.0, self.load.1
        )?;
        if self.hybrid {
            writeln!(
                page,
                "| cgroups | versions 1 and 2; the second hierarchy is hidden from all runtimes, for crun |"
            )?;
        }
        writeln!(
            page,
            "| Rounds | {}, and one before whose figures are dropped |",
            self.rounds
        )?;
        self.times(page)?;
        self.targets(page)?;
        self.idle(page)?;
        page.write_str(WHERE)
    }

    fn times(&self, page: &mut String) -> std::fmt::Result {
        writeln!(
            page,
            "\n## Times\n\nMedians in milliseconds. The floor: {}.\n",
            self.floor()
        )?;
        write!(page, "| |")?;
        for (name, _) in &self.runtimes {
            write!(page, " {name} |")?;
        }
        writeln!(page, " from a template / floor | fresh boot / floor |")?;
        writeln!(page, "|---|{}", "---|".repeat(self.runtimes.len() + 2))?;
        for (name, times) in ROWS {
            write!(page, "| {name} |")?;
            for (_, measured) in &self.runtimes {
                write!(page, " {} |", milliseconds(median(times(measured))))?;
            }
            writeln!(
                page,
                " {} | {} |",
                ratio(self.ratio(0, times)),
                ratio(self.ratio(1, times))
            )?;
        }
        Ok(())
    }

    fn targets(&self, page: &mut String) -> std::fmt::Result {
        let ours = |times: fn(&Times) -> &[Duration]| {
            let measured = self.runtimes.first()?;
            median(times(&measured.1)).map(|time| time.as_secs_f64() * 1000.0)
        };
        let mib = |kib: u64| u32::try_from(kib).map_or(f64::MAX, f64::from) / 1024.0;
        let rows = [
            (
                "`run` of `true` from a template / floor",
                self.ratio(0, |times| &times.run),
                Some(1.35),
                "",
            ),
            (
                "`run` of `true` with a fresh boot / floor",
                self.ratio(1, |times| &times.run),
                None,
                "",
            ),
            (
                "`exec` of `true`",
                ours(|times| &times.exec),
                Some(150.0),
                " ms",
            ),
            ("`delete`", ours(|times| &times.delete), Some(300.0), " ms"),
            (
                "idle, all processes",
                Some(self.idle.processor() * 100.0),
                Some(2.0),
                " % of a core",
            ),
            (
                "host processes but QEMU",
                Some(mib(self.idle.host_pss())),
                Some(15.0),
                " MiB PSS",
            ),
        ];
        writeln!(
            page,
            "\n## Targets\n\n| | target | measured | |\n|---|---|---|---|"
        )?;
        for (name, measured, target, unit) in rows {
            let value = match measured {
                Some(value) => format!("{value:.2}{unit}"),
                None => "not measured".to_owned(),
            };
            let verdict = match measured.zip(target) {
                Some((value, target)) if value <= target => "met",
                Some(_) => "missed",
                None => "",
            };
            let target = target.map_or_else(|| "none".to_owned(), |most| format!("≤ {most}{unit}"));
            writeln!(page, "| {name} | {target} | {value} | {verdict} |")?;
        }
        Ok(())
    }

    fn idle(&self, page: &mut String) -> std::fmt::Result {
        writeln!(
            page,
            "\n## An idle sandbox\n\nOne container that sleeps, watched for {} s. PSS in MiB.\n",
            self.idle.watched.as_secs()
        )?;
        writeln!(
            page,
            "| process | PSS | anonymous | files | shared memory | processor | wake-ups / s |"
        )?;
        writeln!(page, "|---|---|---|---|---|---|---|")?;
        for process in &self.idle.processes {
            let mib = |kib: u64| u32::try_from(kib).map_or(f64::MAX, f64::from) / 1024.0;
            writeln!(
                page,
                "| {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.2} % | {:.1} |",
                process.role,
                mib(process.pss),
                mib(process.anonymous),
                mib(process.file),
                mib(process.shared),
                process.processor * 100.0,
                process.wakeups
            )?;
        }
        Ok(())
    }

    fn floor(&self) -> String {
        let range = |value: Option<&Duration>| milliseconds(value.copied());
        format!(
            "{} ms ({} to {}) with {} of memory",
            milliseconds(median(&self.floors)),
            range(self.floors.iter().min()),
            range(self.floors.iter().max()),
            floor::MEMORY
        )
    }

    fn ratio(&self, runtime: usize, times: fn(&Times) -> &[Duration]) -> Option<f64> {
        median_ratio(times(&self.runtimes.get(runtime)?.1), &self.floors)
    }
}

fn milliseconds(time: Option<Duration>) -> String {
    time.map_or_else(
        || "–".to_owned(),
        |time| format!("{:.0}", time.as_secs_f64() * 1000.0),
    )
}

fn ratio(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"))
}

/// How the figures come about.
const METHOD: &str = "\
# Benchmarks

`make bench` writes this page; its figures are of one run on one machine, which is described below. Times of different
runs, let alone of different machines, cannot be compared; ratios within a run can.

## Method

- Whole commands are timed, from the start of the process to its end, as an engine would see them. `run` includes the
  removal of the container. Nothing is warmed up but the host's page cache, the cached outcome of the probe for KVM and
  the template. Each container gets a machine of its own: with **cofferdam** a copy of the template, which is the normal
  way under emulation; with **booted** a fresh boot (`template = \"never\"`), as the first start has it.
- The **floor** is QEMU with our kernel and our guest image and none of our programs on the host: the memory and devices
  of a sandbox without the file share, from QEMU's start until the agent has answered the first call over the link. A
  runtime that boots a machine for each container cannot be faster than that; one that copies a booted one can.
- In each round everything is done once: the floor, then every runtime with the same bundle (a static busybox, six mounts,
  five namespaces, device rules). Ratios are medians of the ratios within a round, so that load from elsewhere hits both
  sides.
- `exec` is the second one in its container. `delete` is timed without the end of the process, `delete --force` with it.
- State directories and bundles of all runtimes lie in memory (`/dev/shm`).
- PSS (proportional set size) counts a page that n processes share as one n-th for each. Processor time is the scheduler's
  count for all threads.

";

/// Why a run takes longer than the floor. The counts were taken once, with a plugin for QEMU that counts blocks.
const WHERE: &str = "
## Where the time of a run goes

An emulator translates each block of guest code before it executes it for the first time, and that is most of a short
guest's life. Counts do not depend on how busy the host is (QEMU 7.2, 256 MiB, one virtual CPU, version 0.1.0):

| until | blocks translated | of these by programs | instructions executed, millions |
|---|---|---|---|
| the agent answers (the floor) | 54,800 | 6,600 | 39.0 |
| the guest is configured: clock, name, loopback, share mounted | 3,600 | 800 | 0.4 |
| the container is created | 20,600 | 10,800 | 9.6 |
| it is started | 2,600 | 600 | 0.9 |
| `true` has ended | 2,800 | 1,800 | 1.8 |
| file systems are written back | 300 | 0 | 0.2 |

After the floor, 29,900 further blocks, 0.55 of the floor's, are code that runs for the first time: namespaces, cgroups,
mounts and device rules in the kernel, reading the spec and libcontainer in the agent. They are a long flat list without a
single large item, so a freshly booted, emulated machine does not get below about 1.5 times the floor, whatever happens on
the host. The host's own part is 10 to 20 ms before QEMU starts and 20 to 40 ms to end it and to give its memory back.
Hardware virtualization translates nothing. A machine that starts from a template skips the floor, but has nothing
translated yet, so what it executes after that, the kernel's usual paths among it, costs somewhat more than after a boot.

`cofferdam --debug --log FILE run …` writes the timeline of a run, with the processor time that the VMM had used at each
step.
";
