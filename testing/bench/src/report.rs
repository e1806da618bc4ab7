//! The page that tells what was measured.

mod engines;
mod method;

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use crate::engines::Times as Engines;
use crate::floor;
use crate::host;
use crate::idle::Idle;
use crate::network::Throughput;
use crate::runtime::Times;
use crate::stats::{median, median_ratio};
use method::{METHOD, WHERE};

/// Everything that was measured in one run.
#[derive(Debug)]
pub struct Report {
    pub rounds: u32,
    pub floors: Vec<Duration>,
    /// Name with version, and times; ours first, then ours booted.
    pub runtimes: Vec<(String, Times)>,
    pub idle: Idle,
    /// A pod behind our shim; nothing where there is no containerd.
    pub idle_pod: Option<Idle>,
    pub engines: Engines,
    /// Of bare QEMU first; or why not.
    pub network: Result<Vec<Throughput>, String>,
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
        engines::operations(page, &self.engines)?;
        engines::network(page, &self.network)?;
        self.targets(page)?;
        idle(
            page,
            "An idle sandbox",
            "One container that sleeps",
            &self.idle,
        )?;
        if let Some(pod) = &self.idle_pod {
            let what = "One pod with one container that sleeps";
            idle(page, "An idle pod behind containerd's shim", what, pod)?;
        }
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
        let pod = self.idle_pod.as_ref();
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
            (
                "containerd's shim",
                pod.and_then(|pod| Some(mib(pod.role("shim")?.pss))),
                Some(8.0),
                " MiB PSS",
            ),
            (
                "idle sandbox, processes but QEMU",
                Some(self.idle.host_wakeups()),
                Some(0.0),
                " wake-ups / s",
            ),
            (
                "idle pod, processes but QEMU",
                pod.map(Idle::host_wakeups),
                Some(0.0),
                " wake-ups / s",
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

fn idle(page: &mut String, title: &str, what: &str, idle: &Idle) -> std::fmt::Result {
    let seconds = idle.watched.as_secs();
    writeln!(
        page,
        "\n## {title}\n\n{what}, watched for {seconds} s. PSS in MiB.\n"
    )?;
    writeln!(
        page,
        "| process | PSS | anonymous | files | shared memory | processor | wake-ups / s |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|---|")?;
    for process in &idle.processes {
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

fn mib(kib: u64) -> f64 {
    u32::try_from(kib).map_or(f64::MAX, f64::from) / 1024.0
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
