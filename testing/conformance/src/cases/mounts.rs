//! Mounts of the configuration.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};

use crate::case::{Case, Verdict, case, passed, skipped};
use crate::environment::Env;
use crate::reaper::Exit;

/// The cases of this group.
pub const CASES: &[Case] = &[
    case("mounts/bind-directory", bind_directory),
    case("mounts/bind-read-only", bind_read_only),
    case("mounts/bind-single-file", bind_file),
    case("mounts/file-rewritten-before-the-start", rewritten),
    case("mounts/bind-options", bind_options),
    case("mounts/bind-recursive", bind_recursive),
    case("mounts/destination-is-made", destination_made),
    case("mounts/nested-in-order", nested),
    case("mounts/missing-source-named", missing_source),
    case("mounts/unknown-type-named", unknown_type),
    case("mounts/symlink-stays-in-rootfs", symlink_stays),
    case("mounts/parent-reference-stays-in-rootfs", parent_stays),
    case("mounts/two-containers-share-a-directory", shared),
    case("mounts/file-attributes-cross", attributes),
    case("mounts/not-seen-on-the-host", private),
];

fn bind_directory(env: &Env) -> Result<Verdict> {
    let source = env.directory("source")?;
    fs::write(source.join("given"), "from the host")?;
    let mut bundle = env.script(
        "cat /mnt/given; mkdir /mnt/dir; echo from inside > /mnt/dir/made; rm /mnt/given",
    )?;
    bundle.bind(&source, "/mnt", &["rw"]);
    ensure!(
        env.run_text(&bundle)? == "from the host",
        "the container reads something else"
    );
    ensure!(
        fs::read_to_string(source.join("dir/made"))? == "from inside\n",
        "the host reads something else"
    );
    ensure!(
        !source.join("given").exists(),
        "a file removed inside is still on the host"
    );
    passed()
}

fn bind_read_only(env: &Env) -> Result<Verdict> {
    let source = env.directory("source")?;
    fs::write(source.join("given"), "content")?;
    let script = "cat /mnt/given; echo x 2>/dev/null > /mnt/given && echo written; touch /mnt/new 2>&1; rm /mnt/given 2>&1";
    let mut bundle = env.script(&format!("{script}; exit 0"))?;
    bundle.bind(&source, "/mnt", &["ro"]);
    let text = env.run_text(&bundle)?;
    ensure!(
        text.matches("Read-only file system").count() >= 2,
        "writing is not refused: {text:?}"
    );
    ensure!(
        !text.contains("written"),
        "a file on a read-only mount was written"
    );
    ensure!(
        fs::read_to_string(source.join("given"))? == "content",
        "the file was changed"
    );
    passed()
}

fn bind_file(env: &Env) -> Result<Verdict> {
    let source = env.directory("source")?;
    fs::write(source.join("one"), "first\n")?;
    fs::write(source.join("two"), "second\n")?;
    let script = "cat /etc/one /etc/passwd; echo more >> /etc/one; echo x 2>/dev/null >> /etc/passwd || echo refused";
    let mut bundle = env.script(script)?;
    bundle.bind(&source.join("one"), "/etc/one", &["rw"]).bind(
        &source.join("two"),
        "/etc/passwd",
        &["ro"],
    );
    let text = env.run_text(&bundle)?;
    ensure!(text == "first\nsecond\nrefused", "it printed {text:?}");
    ensure!(
        fs::read_to_string(source.join("one"))? == "first\nmore\n",
        "the host's file was not written"
    );
    ensure!(
        fs::read_to_string(source.join("two"))? == "second\n",
        "the read-only file was written"
    );
    ensure!(
        fs::read_dir(&source)?.count() == 2,
        "files appeared beside the sources"
    );
    passed()
}

/// Engines write a container's `/etc/resolv.conf` again when it has its network, which is after it was created.
fn rewritten(env: &Env) -> Result<Verdict> {
    let source = env.directory("source")?;
    let given = source.join("given");
    fs::write(&given, "short\n")?;
    let mut bundle = env.script("cat /etc/given > /mnt/seen")?;
    bundle
        .bind(&source, "/mnt", &["rw"])
        .bind(&given, "/etc/given", &["ro"]);
    let container = env.create(&bundle)?;
    let longer = "this has become longer\n";
    fs::write(&given, longer)?;
    container.start()?;
    container.expect_exit(Exit::Code(0))?;
    let seen = fs::read_to_string(source.join("seen"))?;
    ensure!(seen == longer, "the container reads {seen:?}");
    passed()
}

fn bind_options(env: &Env) -> Result<Verdict> {
    let source = env.directory("source")?;
    let mut bundle = env.script(
        "grep ' /mnt ' /proc/mounts; cp /bin/busybox /mnt/true; /mnt/true 2>&1; echo code $?",
    )?;
    bundle.bind(&source, "/mnt", &["rw", "noexec", "nosuid", "nodev"]);
    let text = env.run_text(&bundle)?;
    for word in ["rw", "noexec", "nosuid", "nodev"] {
        ensure!(text.contains(word), "the mount has no {word}: {text:?}");
    }
    ensure!(
        text.contains("Permission denied") && text.ends_with("code 126"),
        "noexec is not enforced: {text:?}"
    );
    passed()
}

fn bind_recursive(env: &Env) -> Result<Verdict> {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
    let source = env.directory("source")?;
    let below = source.join("below");
    fs::create_dir(&below)?;
    if let Err(error) = mount("tmpfs", &below, "tmpfs", MountFlags::empty(), None) {
        return skipped(format!("this host cannot mount a tmpfs: {error}"));
    }
    let result = (|| {
        fs::write(below.join("file"), "deep")?;
        let mut bundle = env.script("cat /mnt/below/file; echo up > /mnt/below/made")?;
        bundle.mount("/mnt", "bind", &source.to_string_lossy(), &["rbind", "rw"]);
        let text = env.run_text(&bundle)?;
        ensure!(
            text == "deep",
            "what is mounted below the source is not there: {text:?}"
        );
        ensure!(
            below.join("made").exists(),
            "what was written below is not there"
        );
        Ok(())
    })();
    unmount(&below, UnmountFlags::DETACH)?;
    result?;
    passed()
}

fn destination_made(env: &Env) -> Result<Verdict> {
    let source = env.directory("source")?;
    fs::write(source.join("file"), "here")?;
    let mut bundle = env.script("cat /a/b/c/file /d/e/f; ls -d /g/h")?;
    bundle
        .bind(&source, "/a/b/c", &["ro"])
        .bind(&source.join("file"), "/d/e/f", &["ro"]);
    bundle.mount("/g/h", "tmpfs", "tmpfs", &[]);
    let text = env.run_text(&bundle)?;
    ensure!(text == "herehere/g/h", "it printed {text:?}");
    passed()
}

fn nested(env: &Env) -> Result<Verdict> {
    let (outer, inner) = (env.directory("outer")?, env.directory("inner")?);
    fs::write(outer.join("which"), "outer ")?;
    fs::write(inner.join("which"), "inner ")?;
    let mut bundle =
        env.script("cat /mnt/which /mnt/sub/which; ls /mnt/sub/deep/; cat /mnt/sub/deep/file")?;
    bundle
        .bind(&outer, "/mnt", &["rw"])
        .bind(&inner, "/mnt/sub", &["rw"]);
    bundle.mount("/mnt/sub/deep", "tmpfs", "tmpfs", &[]).bind(
        &inner.join("which"),
        "/mnt/sub/deep/file",
        &["ro"],
    );
    let text = env.run_text(&bundle)?;
    ensure!(text == "outer inner file\ninner", "it printed {text:?}");
    // A later mount covers an earlier one at the same place.
    let mut bundle = env.script("cat /mnt/which")?;
    bundle
        .bind(&outer, "/mnt", &["ro"])
        .bind(&inner, "/mnt", &["ro"]);
    let text = env.run_text(&bundle)?;
    ensure!(
        text == "inner",
        "the later mount does not cover the earlier one: {text:?}"
    );
    passed()
}

fn missing_source(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    bundle.bind(&env.dir.join("not-there"), "/mnt", &["rw"]);
    env.refuses(&bundle, &["not-there"])?;
    env.nothing_left()?;
    passed()
}

fn unknown_type(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    bundle.mount("/mnt", "no-such-filesystem", "none", &[]);
    env.refuses(&bundle, &["no-such-filesystem", "/mnt", "no such device"])?;
    env.nothing_left()?;
    passed()
}

/// Mount on a destination that a hostile image points outside; it must land inside or be refused.
fn stays(env: &Env, destination: &str, link: Option<(&str, &str)>) -> Result<()> {
    let (outside, source) = (env.directory("outside")?, env.directory("source")?);
    fs::write(source.join("file"), "content")?;
    let mut bundle = env.script("true")?;
    if let Some((name, target)) = link {
        symlink(
            target.replace("OUTSIDE", &outside.to_string_lossy()),
            bundle.rootfs(name),
        )?;
    }
    bundle.bind(
        &source,
        &destination.replace("OUTSIDE", &outside.to_string_lossy()),
        &["rw"],
    );
    let finished = env.run(&bundle)?;
    ensure!(
        fs::read_dir(&outside)?.count() == 0,
        "mounting on {destination} touched the host ({})",
        finished.exit
    );
    ensure!(
        !env.dir.join("escaped").exists(),
        "mounting on {destination} touched the host"
    );
    Ok(())
}

fn symlink_stays(env: &Env) -> Result<Verdict> {
    stays(env, "/link/sub", Some(("link", "OUTSIDE")))?;
    stays(
        env,
        "/link/sub",
        Some(("link", "../../../../../../../../../OUTSIDE")),
    )?;
    stays(env, "/link", Some(("link", "../escaped")))?;
    // An absolute link is followed below the root filesystem.
    let source = env.directory("source")?;
    fs::write(source.join("file"), "content")?;
    let mut bundle = env.script("cat /mnt/real/file")?;
    fs::create_dir(bundle.rootfs("mnt/real"))?;
    symlink("/mnt/real", bundle.rootfs("link"))?;
    bundle.bind(&source, "/link", &["ro"]);
    let text = env.run_text(&bundle)?;
    ensure!(text == "content", "it printed {text:?}");
    passed()
}

fn parent_stays(env: &Env) -> Result<Verdict> {
    stays(env, "/../../../escaped", None)?;
    stays(env, "/tmp/../../escaped", None)?;
    passed()
}

fn shared(env: &Env) -> Result<Verdict> {
    let source = env.directory("source")?;
    let mut bundle = env.bundle()?;
    bundle
        .args(&["/bin/sleep", "100000"])
        .bind(&source, "/mnt", &["rw"]);
    let (first, second) = (env.start(&bundle)?, env.start(&bundle)?);
    first.exec_text("echo hello > /mnt/file.new && mv /mnt/file.new /mnt/file")?;
    let text = second.exec_text("cat /mnt/file")?;
    ensure!(text == "hello", "the other container reads {text:?}");
    fs::write(source.join("third"), "host")?;
    let text = first.exec_text("cat /mnt/third")?;
    ensure!(
        text == "host",
        "the first container reads {text:?} of the host's file"
    );
    passed()
}

fn attributes(env: &Env) -> Result<Verdict> {
    use std::os::unix::fs::MetadataExt;
    let source = env.directory("source")?;
    let script = "cd /mnt; echo x > file; chown 1234:4321 file; chmod 4751 file; ln file hard; ln -s file soft; \
                  touch -d '2001-02-03 04:05:06' file; mkfifo fifo; stat -c '%a %u %g %h %Y' file";
    let mut bundle = env.script(script)?;
    bundle
        .bind(&source, "/mnt", &["rw"])
        .set("/process/env", serde_json::json!(["PATH=/bin", "TZ=UTC"]));
    let text = env.run_text(&bundle)?;
    ensure!(
        text == "4751 1234 4321 2 981173106",
        "inside, the file has {text:?}"
    );
    let metadata = fs::metadata(source.join("file"))?;
    let seen = (
        metadata.mode() & 0o7777,
        metadata.uid(),
        metadata.gid(),
        metadata.nlink(),
        metadata.mtime(),
    );
    ensure!(
        seen == (0o4751, 1234, 4321, 2, 981_173_106),
        "on the host, the file has {seen:?}"
    );
    ensure!(
        fs::read_link(source.join("soft"))?.to_str() == Some("file"),
        "the symbolic link changed"
    );
    passed()
}

fn private(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    bundle
        .args(&["/bin/sleep", "100000"])
        .mount("/mnt", "tmpfs", "tmpfs", &[]);
    let container = env.start(&bundle)?;
    container.exec_text("touch /mnt/inside")?;
    ensure!(
        !bundle.rootfs("mnt/inside").exists(),
        "a mount of the container is seen on the host"
    );
    passed()
}
