//! Templates: copies that share nothing, and everything that can be wrong with one. A start never fails for it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use harness::{Cofferdam, Outcome, descendant, wait_until};

use crate::bundle::{LIMIT, SLEEP, bundle, configure, create, script, text};
use crate::cgroup::Groups;

/// What a template's start logs when it did not work.
const FALLBACK: &str = "could not be used";

/// An installation with a folder of its own for templates; emulation, since there are none else.
fn installation() -> Option<Cofferdam> {
    let cofferdam = Cofferdam::with_config("backend = \"qemutcg\"\n#template_directory")?;
    let folder = cofferdam.folder().join("templates");
    configure(&cofferdam, &format!("template_directory = {folder:?}"));
    Some(cofferdam)
}

fn folder(cofferdam: &Cofferdam) -> PathBuf {
    cofferdam.folder().join("templates")
}

/// The one template that there is.
fn template(cofferdam: &Cofferdam) -> Option<PathBuf> {
    let entries = fs::read_dir(folder(cofferdam)).ok()?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths.find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name != "lock" && name != "draft" && !name.contains('.')
    })
}

fn made(cofferdam: &Cofferdam) -> PathBuf {
    cofferdam.ok(["template", "make"]);
    template(cofferdam).expect("a template")
}

/// Runs `true`, or these words, in a container of its own.
fn run(cofferdam: &Cofferdam, id: &str, words: &[&str]) -> Outcome {
    let bundle = bundle(cofferdam, id, words);
    cofferdam.run(["--debug", "run", "--bundle", text(&bundle), id])
}

/// The container ran, its machine was booted, and the log says why.
fn assert_fell_back(cofferdam: &Cofferdam, why: &str) {
    let before = cofferdam.log().len();
    let done = run(cofferdam, "fallback", &["true"]);
    let log = cofferdam.log().split_off(before);
    assert_eq!(done.code, 0, "{done:?}\n{log}");
    assert!(log.contains(FALLBACK) && log.contains(why), "{why}: {log}");
}

/// The container ran in a copy.
fn assert_copied(cofferdam: &Cofferdam) {
    let before = cofferdam.log().len();
    let done = run(cofferdam, "copy", &["true"]);
    let log = cofferdam.log().split_off(before);
    assert_eq!(done.code, 0, "{done:?}\n{log}");
    assert!(
        log.contains("starting a guest from a template") && !log.contains(FALLBACK),
        "{log}"
    );
}

#[test]
fn copies_share_no_random_numbers_no_clock_and_no_name() {
    let Some(cofferdam) = installation() else {
        return;
    };
    made(&cofferdam);
    // So long that a clock which had stood still since then would be seen to.
    std::thread::sleep(Duration::from_secs(3));
    let seconds = || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.expect("a time").as_secs()
    };
    let look = "hexdump -n 32 -e '32/1 \"%02x\"' /dev/urandom; echo
cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid
hostname; date +%s; cut -d. -f1 /proc/uptime";
    let mut seen = Vec::new();
    for id in ["one", "two", "three"] {
        let before = seconds();
        let done = run(&cofferdam, id, &["sh", "-c", look]);
        let after = seconds();
        let lines: Vec<String> = done.stdout.lines().map(str::to_owned).collect();
        let [random, boot, uuid, name, date, uptime] = &lines[..] else {
            panic!("{done:?}");
        };
        let date: u64 = date.parse().expect("seconds");
        assert!((before..=after).contains(&date), "{before} {date} {after}");
        assert_eq!(name, id);
        assert_eq!(random.len(), 64, "{random}");
        // Its time goes on from the template's.
        let uptime: u64 = uptime.parse().expect("seconds");
        assert!(uptime < 60, "{uptime}");
        seen.extend([random.clone(), boot.clone(), uuid.clone()]);
    }
    let all = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), all, "alike: {seen:?}");
    assert_copied(&cofferdam);
    cofferdam.assert_nothing_left();
}

#[test]
fn the_first_start_has_a_template_made_for_the_next() {
    let Some(cofferdam) = installation() else {
        return;
    };
    assert_eq!(run(&cofferdam, "first", &["true"]).code, 0);
    let there = wait_until(LIMIT, || template(&cofferdam).is_some());
    assert!(there, "{}", cofferdam.log());
    assert_copied(&cofferdam);
    cofferdam.assert_nothing_left();
    configure(&cofferdam, "template = \"never\"");
    cofferdam.ok(["template", "rm"]);
    assert_eq!(run(&cofferdam, "never", &["true"]).code, 0);
    cofferdam.assert_nothing_left();
    assert_eq!(template(&cofferdam), None);
}

/// Damages a file of this length.
type Damage = fn(&File, u64);

#[test]
fn a_damaged_template_means_a_boot_and_another_template() {
    let Some(cofferdam) = installation() else {
        return;
    };
    let cut: Damage = |file, length| file.set_len(length / 2).expect("cut off");
    let head: Damage = |file, _| file.write_all_at(b"\xff", 60).expect("damaged");
    let empty: Damage = |file, _| file.set_len(0).expect("emptied");
    for damage in [cut, head, empty] {
        let path = made(&cofferdam);
        let file = File::options().write(true).open(&path).expect("it opens");
        damage(&file, file.metadata().expect("metadata").len());
        assert_fell_back(&cofferdam, "the template cannot be used");
        let remade = wait_until(LIMIT, || path.exists());
        assert!(remade, "{}", cofferdam.log());
        assert_copied(&cofferdam);
    }
    cofferdam.assert_nothing_left();
}

#[test]
fn a_copy_that_does_not_come_to_life_means_a_boot() {
    let Some(cofferdam) = installation() else {
        return;
    };
    let path = made(&cofferdam);
    // The memory's pages: the kernel goes on in nonsense.
    let file = File::options().write(true).open(&path).expect("it opens");
    let length = file.metadata().expect("metadata").len();
    let mut at = length - (length - (1 << 20)) / 4096 * 4096;
    while at < length {
        file.write_all_at(&[0xff; 4096], at).expect("overwritten");
        at += 4096;
    }
    assert_fell_back(&cofferdam, "booting the guest");
    // It is not tried again soon.
    assert_eq!(run(&cofferdam, "again", &["true"]).code, 0);
    cofferdam.assert_nothing_left();
    assert_eq!(template(&cofferdam), None);
    // Unless somebody asks for it.
    made(&cofferdam);
    assert_copied(&cofferdam);
}

#[test]
fn a_qemu_that_takes_no_copies_means_a_boot() {
    let Some(cofferdam) = installation() else {
        return;
    };
    let picky = "case \"$*\" in *-incoming*) echo no copies today >&2; exit 1;; esac
exec qemu-system-x86_64 \"$@\"";
    let picky = script(&cofferdam, "qemu", picky);
    configure(&cofferdam, &format!("qemu = {picky:?}"));
    made(&cofferdam);
    assert_fell_back(&cofferdam, "no copies today");
    assert_eq!(template(&cofferdam), None);
    cofferdam.assert_nothing_left();
}

#[test]
fn a_template_that_others_could_have_written_is_not_used() {
    let Some(cofferdam) = installation() else {
        return;
    };
    let path = made(&cofferdam);
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    for (path, mine, everybodys) in [(path, 0o600, 0o666), (folder(&cofferdam), 0o700, 0o777)] {
        mode(&path, everybodys);
        let before = cofferdam.log().len();
        assert_eq!(run(&cofferdam, "booted", &["true"]).code, 0);
        let log = cofferdam.log().split_off(before);
        assert!(
            log.contains("only its owner") && !log.contains("from a template"),
            "{log}"
        );
        mode(&path, mine);
        assert_copied(&cofferdam);
    }
    cofferdam.assert_nothing_left();
}

#[test]
fn a_template_may_go_while_it_is_used() {
    let Some(cofferdam) = installation() else {
        return;
    };
    let bundle = bundle(&cofferdam, "b", &SLEEP);
    for moment in [0, 10, 20, 40, 80, 160] {
        let path = made(&cofferdam);
        let remover = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(moment));
            fs::remove_file(path).expect("it was there");
        });
        create(&cofferdam, &bundle, "c");
        remover.join().expect("removed");
        cofferdam.ok(["delete", "--force", "c"]);
    }
    cofferdam.assert_nothing_left();
}

#[test]
fn a_maker_that_is_killed_leaves_nothing_that_counts() {
    let Some(cofferdam) = installation() else {
        return;
    };
    for (number, moment) in [0, 100, 500, 1000].into_iter().enumerate() {
        let id = format!("c{number}");
        assert_eq!(run(&cofferdam, &id, &["true"]).code, 0);
        let mut maker = None;
        let found = wait_until(LIMIT, || {
            let all = cofferdam.processes();
            maker = all
                .into_iter()
                .find(|(_, command)| command.contains("template-maker"));
            maker.is_some() || template(&cofferdam).is_some()
        });
        assert!(found, "no maker\n{}", cofferdam.log());
        std::thread::sleep(Duration::from_millis(moment));
        if let Some((pid, _)) = maker {
            let qemu = descendant(pid, "qemu-system");
            cofferdam.kill9(pid);
            let ended = wait_until(LIMIT, || qemu.is_none_or(|qemu| !harness::is_alive(qemu)));
            assert!(ended, "its QEMU lives");
        }
        cofferdam.assert_nothing_left();
        // It may have been quicker than we.
        if let Some(path) = template(&cofferdam) {
            assert_copied(&cofferdam);
            fs::remove_file(path).expect("it was there");
        }
    }
    made(&cofferdam);
    assert_copied(&cofferdam);
    let left: Vec<_> = fs::read_dir(folder(&cofferdam))
        .expect("a folder")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_maker_is_not_in_the_containers_account() {
    let Some(cofferdam) = installation() else {
        return;
    };
    let groups = Groups::new("maker");
    let bundle = groups.bundle(&cofferdam, "b", &SLEEP);
    create(&cofferdam, &bundle, "c");
    assert!(!groups.folders("c").is_empty(), "no group was made");
    let mut qemu = None;
    let seen = wait_until(LIMIT, || {
        let all = cofferdam.processes();
        let maker = all
            .iter()
            .find(|(_, command)| command.contains("template-maker"));
        qemu = maker.and_then(|(pid, _)| descendant(*pid, "qemu-system"));
        qemu.is_some()
    });
    assert!(seen, "no maker\n{}", cofferdam.log());
    let qemu = qemu.expect("it was seen");
    let account = fs::read_to_string(format!("/proc/{qemu}/cgroup")).expect("its groups");
    assert!(!account.contains("cofferdam-test-maker"), "{account}");
    cofferdam.ok(["delete", "--force", "c"]);
    assert_eq!(groups.folders("c"), Vec::<PathBuf>::new());
    assert!(harness::is_alive(qemu), "the container took it along");
    assert!(
        wait_until(LIMIT, || template(&cofferdam).is_some()),
        "{}",
        cofferdam.log()
    );
    cofferdam.assert_nothing_left();
}

#[test]
fn sizes_have_templates_of_their_own() {
    let Some(cofferdam) = installation() else {
        return;
    };
    made(&cofferdam);
    cofferdam.ok(["template", "make", "--memory", "384", "--vcpus", "2"]);
    let all = cofferdam.ok(["template", "ls", "--format", "json"]);
    assert!(all.contains("256m-1-") && all.contains("384m-2-"), "{all}");
    let bundle = crate::bundle::bundle_with(
        &cofferdam,
        "large",
        &["grep", "-c", "^processor", "/proc/cpuinfo"],
        |config| {
            config["linux"]["resources"] = serde_json::json!({
                "memory": { "limit": 256 << 20 }, "cpu": { "quota": 150_000, "period": 100_000 },
            });
        },
    );
    let before = cofferdam.log().len();
    let done = cofferdam.run(["--debug", "run", "--bundle", text(&bundle), "large"]);
    let log = cofferdam.log().split_off(before);
    assert_eq!((done.code, done.stdout.trim()), (0, "2"), "{done:?}");
    assert!(
        log.contains("from a template") && !log.contains(FALLBACK),
        "{log}"
    );
    assert_eq!(cofferdam.ok(["template", "rm"]).trim(), "2 removed");
    let mut none = Vec::new();
    writeln!(none, "[]").expect("written");
    assert_eq!(
        cofferdam.ok(["template", "ls", "-f", "json"]).as_bytes(),
        none
    );
}
