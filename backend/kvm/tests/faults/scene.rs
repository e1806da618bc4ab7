//! One machine, and what its driver learns of it.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use backend_api::conformance::{Fixture, guest};
use backend_api::{Backend, Diagnostics, LinkIo, Privileges, Vm, VmConfig, VmExit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::census::Census;
use crate::common;

/// How long anything may take: tests share a busy machine, whose virtualization may be emulated.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Runs one case, alone: what there is on the host is counted before and after.
pub fn case(run: impl AsyncFnOnce(&Fixture)) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let fixture = match common::fixture() {
        Ok(fixture) => fixture,
        Err(why) => {
            eprintln!("skipped: {why}");
            return;
        }
    };
    let Privileges::Drop { uid, .. } = fixture.privileges else {
        eprintln!("skipped: needs root");
        return;
    };
    let before = Census::take(uid);
    let begin = Instant::now();
    runtime().block_on(run(&fixture));
    before.expect(uid);
    eprintln!("{} ms in all", begin.elapsed().as_millis());
}

/// One thread, which everything that is started dies with.
pub fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

/// A machine that was booted.
pub struct Scene {
    pub vm: Box<dyn Vm>,
    pub link: LinkIo,
}

impl Scene {
    pub async fn boot(fixture: &Fixture, config: VmConfig) -> Self {
        let (vm, link) = fixture.boot(config).await;
        Self { vm, link }
    }

    /// Boots the suite's guest, which runs this script before it serves.
    pub async fn with_job(fixture: &Fixture, config: VmConfig, job: &str) -> Self {
        Self::on(&*fixture.backend, config, job).await
    }

    /// So on another backend than the fixture's.
    pub async fn on(backend: &dyn Backend, mut config: VmConfig, job: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let name = format!("faults-{}", std::process::id());
        config.initrd = guest::image(folder, &name, Some(job)).expect("an image");
        let image = config.initrd.clone();
        let mut vm = backend.create(config).await.expect("creates");
        fs::remove_file(image).expect("an image");
        let link = vm.boot().await.unwrap_or_else(|error| panic!("{error}"));
        Self { vm, link }
    }

    pub fn pid(&self) -> u32 {
        self.vm.pid().expect("it runs")
    }

    /// The guest answers on its link.
    pub async fn echo(&mut self) {
        let exchange = async {
            self.link.write_all(b"are you there").await?;
            let mut answer = [0; 13];
            self.link.read_exact(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = timeout(LIMIT, exchange).await;
        let answer = answer.unwrap_or_else(|_| panic!("no echo{}", self.vm.diagnostics()));
        assert_eq!(&answer.expect("the link works"), b"are you there");
    }

    /// Waits until the guest has printed this.
    pub async fn printed(&self, words: &str) {
        self.told(words, |told| &told.console).await;
    }

    /// Waits until the VMM has said this.
    pub async fn warned(&self, words: &str) {
        self.told(words, |told| &told.vmm).await;
    }

    async fn told(&self, words: &str, of: fn(&Diagnostics) -> &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let told = self.vm.diagnostics();
            if of(&told).contains(words) {
                return;
            }
            assert!(Instant::now() < deadline, "{words:?} is not told{told}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for the machine's end, and for that of the link; what the driver of a sandbox reports.
    pub async fn end(mut self) -> (VmExit, String) {
        let exit = timeout(LIMIT, self.vm.wait()).await;
        let exit = exit.unwrap_or_else(|_| panic!("it goes on{}", self.vm.diagnostics()));
        assert_eq!(self.vm.pid(), None);
        let closed = timeout(LIMIT, self.link.read(&mut [0; 16])).await;
        assert!(
            matches!(closed, Ok(Ok(0) | Err(_))),
            "the link's end: {closed:?}"
        );
        (exit, format!("the VMM {exit}{}", self.vm.diagnostics()))
    }

    /// Ends a machine that runs. The figure is for whoever reads the test's output.
    pub async fn stop(mut self) {
        let pid = self.pid();
        let begin = Instant::now();
        let stopped = timeout(LIMIT, self.vm.stop()).await;
        stopped.expect("it can be ended").expect("stops");
        eprintln!("stopped within {} ms", begin.elapsed().as_millis());
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert_eq!(self.vm.wait().await, VmExit::Signal(9));
    }
}

/// Asserts that a report has all of these, in this order.
pub fn says(report: &str, words: &[&str]) {
    let mut rest = report;
    for word in words {
        let Some((_, behind)) = rest.split_once(word) else {
            panic!("{word:?} is not where it should be in:\n{report}");
        };
        rest = behind;
    }
}
