//! Working with a guest whose link leads to a shell ([`SHELL`](super::SHELL)), and looking at its VMM.
#![expect(clippy::missing_panics_doc, reason = "a failing test panics")]

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::cases::within;
use crate::{LinkIo, Place, Vm};

/// How long what has ended may still be seen.
const LINGERS: Duration = Duration::from_secs(30);

/// What a command of the guest's prints, with its errors.
pub async fn run(vm: &dyn Vm, link: &mut LinkIo, command: &str) -> String {
    let line = format!("{{ {command}\n}} 2>&1; echo; echo -e 'done\\x04'\n");
    let mut said = Vec::new();
    let exchange = async {
        link.write_all(line.as_bytes()).await?;
        while !said.ends_with(b"done\x04\n") {
            said.push(link.read_u8().await?);
        }
        std::io::Result::Ok(())
    };
    within(command, vm, exchange).await.expect("the link works");
    let said = String::from_utf8_lossy(&said);
    let (said, _) = said.rsplit_once("done\x04").expect("its end");
    said.trim().to_owned()
}

/// The command that has the guest's kernel "bind" or "unbind" what is in a place. It prints nothing if that is done.
#[must_use]
pub fn tell(what: &str, place: Place) -> String {
    let Place(number) = place;
    format!("echo virtio-mmio.{number} >/sys/bus/platform/drivers/virtio-mmio/{what}")
}

/// How many descriptors and threads a VMM has.
#[must_use]
pub fn census(vm: &dyn Vm) -> [usize; 2] {
    let pid = vm.pid().expect("it runs");
    ["fd", "task"].map(|what| {
        let entries = std::fs::read_dir(format!("/proc/{pid}/{what}"));
        entries.map_or(0, Iterator::count)
    })
}

/// Wants them to be as many as before: whoever has waited for a thread's end still finds it in `/proc` for a moment.
pub async fn expect_census(vm: &dyn Vm, before: [usize; 2]) {
    let deadline = Instant::now() + LINGERS;
    while census(vm) != before && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(census(vm), before, "something is left in the VMM");
}
