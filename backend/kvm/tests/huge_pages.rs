//! Memory of huge pages that the host has set aside.

mod common;

use std::fs;
use std::path::Path;

use backend_api::BackendError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How many the host sets aside.
const SETTING: &str = "/proc/sys/vm/nr_hugepages";

/// Of 2 MiB.
const PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// What the suite's machine has.
const NEEDED: u64 = 64;

fn read(path: &Path) -> u64 {
    let text = fs::read_to_string(path).expect("reads");
    text.trim().parse().expect("a number")
}

/// Pages that nobody has or has been promised.
fn free() -> u64 {
    let of = |name: &str| read(&Path::new(PAGES).join(name));
    of("free_hugepages") - of("resv_hugepages")
}

/// The host's setting, put back at the end.
struct SetAside {
    before: u64,
}

impl SetAside {
    /// So that this many are free: fewer if the host has not as many.
    fn free(wanted: u64) -> Self {
        let before = read(Path::new(SETTING));
        let setting = (before + wanted).saturating_sub(free());
        fs::write(SETTING, setting.to_string()).expect("sets");
        Self { before }
    }
}

impl Drop for SetAside {
    fn drop(&mut self) {
        fs::write(SETTING, self.before.to_string()).expect("sets back");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_guest_has_pages_that_were_set_aside_or_is_refused() {
    let fixture = match common::fixture() {
        Ok(fixture) => fixture,
        Err(why) => {
            eprintln!("skipped: {why}");
            return;
        }
    };
    let config = || {
        let mut config = fixture.config(&[]);
        config.huge_pages = true;
        config
    };
    {
        let _few = SetAside::free(NEEDED - 1);
        let error = fixture.create(config()).await.map(drop);
        let error = error.expect_err("too few");
        let BackendError::NoHugePages { needed, free } = error else {
            panic!("{error}");
        };
        assert_eq!((needed, free), (NEEDED, NEEDED - 1));
        assert!(error.to_string().contains("vm.nr_hugepages"), "{error}");
        // Taken between the look and the boot.
        let _enough = SetAside::free(NEEDED);
        let mut vm = fixture.create(config()).await.expect("creates");
        let _fewer = SetAside::free(NEEDED - 1);
        let error = vm.boot().await.map(drop).expect_err("one is missing");
        assert!(error.to_string().contains("guest's memory"), "{error}");
    }
    let _enough = SetAside::free(NEEDED);
    let (mut vm, mut link) = fixture.boot(config()).await;
    link.write_all(b"there").await.expect("writes");
    let mut answer = [0; 5];
    link.read_exact(&mut answer).await.expect("reads");
    assert_eq!(&answer, b"there");
    assert_eq!(free(), 0, "all are the guest's");
    vm.stop().await.expect("stops");
    assert_eq!(free(), NEEDED, "all have come back");
    let mut odd = config();
    odd.memory_bytes += 1 << 20;
    let error = fixture
        .create(odd)
        .await
        .map(drop)
        .expect_err("half a page");
    assert!(error.to_string().contains("2 MiB"), "{error}");
}
