//! The driver itself, killed.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::kernel;
use crate::scene::{LIMIT, Scene, case, runtime};

/// What a driver says before its VMM's number.
const STARTED: &str = "started: ";

#[test]
#[ignore = "the program that another test starts"]
fn drives_until_it_is_told_to_end() {
    let fixture = crate::common::fixture().expect("the other test has looked");
    runtime().block_on(async {
        let kernel = kernel::program(&kernel::SPIN);
        let mut config = fixture.config(&[]);
        config.kernel = kernel.path().into();
        let scene = Scene::boot(&fixture, config).await;
        println!("\n{STARTED}{}", scene.pid());
        // The end of its input, or its own.
        let _ = std::io::stdin().read(&mut [0]);
    });
}

#[test]
fn a_vmm_does_not_outlive_its_driver() {
    case(async |_| {
        let mut driver = Command::new(std::env::current_exe().expect("a program"))
            .args(["--exact", "driver::drives_until_it_is_told_to_end"])
            .args(["--ignored", "--nocapture", "--test-threads=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let output = BufReader::new(driver.stdout.take().expect("a pipe"));
        let mut lines = output.lines().map_while(Result::ok);
        let number = lines.find_map(|line| Some(line.strip_prefix(STARTED)?.to_owned()));
        let folder = format!("/proc/{}", number.expect("a number"));
        assert!(Path::new(&folder).exists());
        driver.kill().expect("kills");
        driver.wait().expect("a child");
        let deadline = Instant::now() + LIMIT;
        while Path::new(&folder).exists() {
            assert!(Instant::now() < deadline, "{folder} is still there");
            thread::sleep(Duration::from_millis(10));
        }
    });
}
