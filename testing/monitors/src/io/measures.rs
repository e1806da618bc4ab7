//! What is measured, and the table of it.

use std::fmt::Write;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::link::{Link, limited};
use super::machine::{EROFS, Kind, Machine, Parts, RAW, RING, TAG};
use crate::trace::Trace;

/// Round trips, and those before that are not counted.
const ROUND_TRIPS: usize = 500;
const WARM_ROUND_TRIPS: usize = 50;

/// Bytes of a stream.
const STREAM: usize = 32 << 20;
const WARM_STREAM: usize = 1 << 20;

/// Reads of a disk by one thread, and by many, each.
const READS: usize = 500;
const DEPTH: usize = 32;
const READS_EACH: usize = 32;
const WARM_READS: usize = 50;

/// Bytes over the network.
const NETWORK: u64 = 64 << 20;
const WARM_NETWORK: u64 = 1 << 20;

const MIB: f64 = (1 << 20) as f64;

/// What a figure says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Microseconds for one.
    Each,
    /// Milliseconds in all.
    All,
    /// MiB per second.
    Bytes,
    /// Gigabits per second.
    Bits,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Each => "µs",
            Self::All => "ms",
            Self::Bytes => "MiB/s",
            Self::Bits => "Gbit/s",
        }
    }
}

/// One measure of one monitor.
struct Figure {
    what: String,
    unit: Unit,
    own: bool,
    value: f64,
    /// How often the guest was left for one thing, or for one MiB.
    exits: f64,
}

/// All of them.
#[derive(Default)]
pub struct Figures(Vec<Figure>);

impl Figures {
    /// Puts those of another machine behind these.
    pub fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    /// Measures a machine that was booted just now.
    pub async fn measure(
        &mut self,
        kind: &Kind,
        parts: &Parts<'_>,
        machine: &mut Machine,
        trace: &mut Trace,
    ) -> Result<()> {
        let own = matches!(kind, Kind::Own(_));
        let mut to = Recorder {
            figures: &mut self.0,
            own,
            trace,
        };
        if parts.contents.iperf {
            to.network(parts, machine).await?;
        }
        // All other devices are the same.
        if !parts.vhost_net {
            to.stream("vsock", &mut machine.link).await?;
            if let Some(serial) = &mut machine.serial {
                to.stream("virtio-serial", serial).await?;
            }
            to.disk("", RAW, &mut machine.link).await?;
            if !own {
                to.disk(" (aio=io_uring)", RING, &mut machine.link).await?;
            }
            to.trees(parts, &mut machine.link).await?;
        }
        Ok(())
    }

    /// As Markdown.
    pub fn table(&self) -> String {
        let mut text = String::from(
            "| what | | ours | exits | QEMU | exits | ours is quicker by |\n|---|---|---|---|---|---|---|\n",
        );
        let mut done: Vec<&str> = Vec::new();
        for figure in &self.0 {
            if done.contains(&figure.what.as_str()) {
                continue;
            }
            done.push(&figure.what);
            let of = |own| {
                self.0
                    .iter()
                    .find(|found| found.own == own && found.what == figure.what)
            };
            let (ours, theirs) = (of(true), of(false));
            let cells = |found: Option<&Figure>| {
                found.map_or_else(
                    || "– | –".to_owned(),
                    |found| format!("{:.3} | {:.2}", found.value, found.exits),
                )
            };
            let ratio = ours.zip(theirs).map_or_else(
                || "–".to_owned(),
                |(ours, theirs)| {
                    let quicker = match figure.unit {
                        Unit::Each | Unit::All => theirs.value / ours.value,
                        Unit::Bytes | Unit::Bits => ours.value / theirs.value,
                    };
                    format!("{quicker:.2}")
                },
            );
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {ratio} |",
                figure.what,
                figure.unit.name(),
                cells(ours),
                cells(theirs),
            );
        }
        text
    }
}

/// Where figures of one machine go.
struct Recorder<'a> {
    figures: &'a mut Vec<Figure>,
    own: bool,
    trace: &'a mut Trace,
}

impl Recorder<'_> {
    /// How long something takes, in seconds, and how often the guest is left meanwhile.
    async fn counted<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<(T, f64, u64)> {
        self.trace.begin()?;
        let begin = Instant::now();
        let done = work.await;
        let seconds = begin.elapsed().as_secs_f64();
        // Also for the machine that is measured in the place of one that failed.
        let exits = self.trace.end()?.values().sum();
        Ok((done?, seconds, exits))
    }

    fn add(&mut self, what: String, unit: Unit, value: f64, exits: f64) {
        let whose = if self.own { "ours" } else { "QEMU" };
        eprintln!(
            "monitors: {whose}: {what}: {value:.3} {}, {exits:.2} exits",
            unit.name()
        );
        self.figures.push(Figure {
            what,
            unit,
            own: self.own,
            value,
            exits,
        });
    }

    async fn stream(&mut self, name: &str, link: &mut Link) -> Result<()> {
        link.echo(WARM_ROUND_TRIPS).await?;
        let ((), seconds, exits) = self.counted(link.echo(ROUND_TRIPS)).await?;
        let count = ROUND_TRIPS as f64;
        self.add(
            format!("{name}: one byte there and back"),
            Unit::Each,
            seconds * 1e6 / count,
            exits as f64 / count,
        );
        let mib = STREAM as f64 / MIB;
        link.send(WARM_STREAM).await?;
        let ((), seconds, exits) = self.counted(link.send(STREAM)).await?;
        let what = format!("{name}: to the guest");
        self.add(what, Unit::Bytes, mib / seconds, exits as f64 / mib);
        link.receive(WARM_STREAM).await?;
        let ((), seconds, exits) = self.counted(link.receive(STREAM)).await?;
        let what = format!("{name}: from the guest");
        self.add(what, Unit::Bytes, mib / seconds, exits as f64 / mib);
        Ok(())
    }

    async fn disk(&mut self, how: &str, serial: &str, link: &mut Link) -> Result<()> {
        for (threads, each) in [(1, READS), (DEPTH, READS_EACH)] {
            link.ask(&format!("blocks {serial} {threads} {WARM_READS}"))
                .await?;
            let request = format!("blocks {serial} {threads} {each}");
            let (answer, _, exits) = self.counted(link.ask(&request)).await?;
            let count = (threads * each) as f64;
            self.add(
                format!("disk: random read of 4 KiB, {threads} at a time{how}"),
                Unit::Each,
                answer.parse::<f64>()? / 1e3 / count,
                exits as f64 / count,
            );
        }
        Ok(())
    }

    async fn trees(&mut self, parts: &Parts<'_>, link: &mut Link) -> Result<()> {
        let share = format!("mount -t virtiofs {TAG} /mnt");
        self.tree("virtio-fs", &share, parts, link).await?;
        if parts.contents.erofs.is_none() {
            return Ok(());
        }
        let disk = link.ask(&format!("disk {EROFS}")).await?;
        let disk = format!("mount -t erofs -o ro {disk} /mnt");
        self.tree("EROFS on a disk", &disk, parts, link).await?;
        if !self.own {
            // QEMU has such images on PCI only.
            return Ok(());
        }
        // Without DAX it would mount all the same.
        let image =
            "mount -t erofs -o ro,dax=always /dev/pmem0 /mnt && grep -q dax=always /proc/mounts";
        self.tree("EROFS in memory, DAX", image, parts, link)
            .await?;
        Ok(())
    }

    async fn tree(
        &mut self,
        name: &str,
        mount: &str,
        parts: &Parts<'_>,
        link: &mut Link,
    ) -> Result<()> {
        link.run(mount).await?;
        for when in ["the first time", "again"] {
            let (answer, _, exits) = self.counted(link.ask("tree /mnt")).await?;
            let numbers: Vec<usize> = answer
                .split(' ')
                .map(str::parse)
                .collect::<Result<_, _>>()
                .context("the guest's answer")?;
            let [nanoseconds, files, bytes] = numbers[..] else {
                bail!("the guest answers {answer:?}");
            };
            if (files, bytes) != parts.contents.sum {
                bail!(
                    "{name}: {files} files with {bytes} bytes, not {:?}",
                    parts.contents.sum
                );
            }
            let mib = bytes as f64 / MIB;
            self.add(
                format!("tree, {name}: {when}"),
                Unit::All,
                nanoseconds as f64 / 1e6,
                exits as f64 / mib,
            );
        }
        link.run("umount /mnt").await?;
        Ok(())
    }

    async fn network(&mut self, parts: &Parts<'_>, machine: &mut Machine) -> Result<()> {
        let wire = &machine.wire;
        machine.link.run(&wire.script()).await?;
        let how = if parts.vhost_net {
            "vhost-net"
        } else {
            "network"
        };
        for (from_guest, direction) in [(false, "to the guest"), (true, "from the guest")] {
            limited(wire.throughput(WARM_NETWORK, from_guest)).await?;
            let work = limited(wire.throughput(NETWORK, from_guest));
            let (rate, _, exits) = self.counted(work).await?;
            self.add(
                format!("{how}: {direction}"),
                Unit::Bits,
                rate,
                exits as f64 / (NETWORK as f64 / MIB),
            );
        }
        Ok(())
    }
}
