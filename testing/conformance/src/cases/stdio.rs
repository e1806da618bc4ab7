//! The three streams: nothing lost, nothing mixed, every end of stream delivered.

use std::thread;

use anyhow::{Context, Result, anyhow, ensure};

use crate::case::{Case, Verdict, case, passed};
use crate::environment::Env;
use crate::pipes;
use crate::reaper::Exit;

/// How much binary data goes through.
const BULK: usize = 8 << 20;

/// The cases of this group.
pub const CASES: &[Case] = &[
    case("stdio/stdin-reaches-process", stdin_reaches),
    case("stdio/stdin-end-of-file", stdin_eof),
    case("stdio/stdin-empty", stdin_empty),
    case("stdio/stdout-stderr-apart", apart),
    case("stdio/binary-both-ways", binary),
    case("stdio/large-stderr", large_stderr),
    case("stdio/output-right-before-exit", last_words),
    case("stdio/closed-reader-of-stdout", closed_reader),
    case("stdio/stdout-closed-early-by-process", closed_by_process),
    case("stdio/unread-stdin-does-not-block-exit", unread_stdin),
    case("stdio/slow-reader-loses-nothing", slow_reader),
];

fn stdin_reaches(env: &Env) -> Result<Verdict> {
    let mut container = env.start(&env.script("while read line; do echo \"<$line>\"; done")?)?;
    let mut stdin = container.stdin.take().context("stdin")?;
    // Each answer comes before the next question: nothing may be held back in a buffer.
    for word in ["one", "two", "three"] {
        stdin.line(word)?;
        let answer = container.stdout.line()?;
        ensure!(answer == format!("<{word}>"), "the answer is {answer:?}");
    }
    drop(stdin);
    container.expect_exit(Exit::Code(0))?;
    passed()
}

fn stdin_eof(env: &Env) -> Result<Verdict> {
    let mut container = env.start(&env.script("cat; echo end")?)?;
    let mut stdin = container.stdin.take().context("stdin")?;
    stdin.write(b"no newline")?;
    drop(stdin);
    let text = container.stdout.text()?;
    ensure!(text == "no newlineend\n", "stdout is {text:?}");
    container.expect_exit(Exit::Code(0))?;
    passed()
}

fn stdin_empty(env: &Env) -> Result<Verdict> {
    let text = env.run_text(&env.script("cat | wc -c")?)?;
    ensure!(
        text.trim() == "0",
        "a container with empty stdin read {text:?} bytes"
    );
    passed()
}

fn apart(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    bundle.script("for n in $(seq 500); do echo out $n; echo err $n >&2; done");
    let mut container = env.start(&bundle)?;
    let mut stderr = std::mem::replace(&mut container.stderr, pipes::output(env.deadline())?.0);
    let reader = thread::spawn(move || stderr.text());
    let out = container.stdout.text()?;
    let err = reader
        .join()
        .map_err(|_| anyhow!("the reader of stderr panicked"))??;
    let wanted = |word: &str| {
        (1..=500)
            .map(|n| format!("{word} {n}\n"))
            .collect::<String>()
    };
    ensure!(
        out == wanted("out"),
        "stdout has {} bytes that differ",
        out.len()
    );
    ensure!(
        err == wanted("err"),
        "stderr has {} bytes that differ",
        err.len()
    );
    container.expect_exit(Exit::Code(0))?;
    passed()
}

/// Bytes of all values in an order that repeats only after a long time.
fn noise(length: usize) -> Vec<u8> {
    let mut state: u32 = 0x2545_f491;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[1]
        })
        .collect()
}

fn binary(env: &Env) -> Result<Verdict> {
    let data = noise(BULK);
    let mut container = env.start(env.bundle()?.args(&["/bin/cat"]))?;
    let mut stdin = container.stdin.take().context("stdin")?;
    let copy = data.clone();
    let writer = thread::spawn(move || stdin.write(&copy));
    let back = container.stdout.rest()?;
    writer
        .join()
        .map_err(|_| anyhow!("the writer panicked"))??;
    ensure!(
        back.len() == data.len(),
        "{} of {} bytes came back",
        back.len(),
        data.len()
    );
    if let Some(at) = back.iter().zip(&data).position(|(a, b)| a != b) {
        anyhow::bail!("byte {at} came back changed");
    }
    container.expect_exit(Exit::Code(0))?;
    passed()
}

fn large_stderr(env: &Env) -> Result<Verdict> {
    let mut container =
        env.start(&env.script("head -c 4194304 /dev/zero | tr '\\0' x >&2; echo done")?)?;
    let err = container.stderr.rest()?;
    ensure!(
        err.len() == 4 << 20,
        "{} bytes of stderr came instead of {}",
        err.len(),
        4 << 20
    );
    ensure!(err.iter().all(|byte| *byte == b'x'), "stderr came changed");
    ensure!(container.stdout.line()? == "done", "stdout is lost");
    container.expect_exit(Exit::Code(0))?;
    passed()
}

fn last_words(env: &Env) -> Result<Verdict> {
    let container = env.sleeper()?;
    for n in 0..50 {
        let finished = container
            .exec(&format!("echo out {n}; echo err {n} >&2"))
            .ok()?;
        ensure!(
            finished.text() == format!("out {n}\n"),
            "exec {n} printed {:?}",
            finished.text()
        );
        ensure!(
            finished.stderr == format!("err {n}\n"),
            "exec {n} wrote {:?} to stderr",
            finished.stderr
        );
    }
    let bundle = env.script("head -c 100000 /dev/zero; printf end")?;
    for n in 0..3 {
        let finished = env.run(&bundle)?.ok()?;
        ensure!(
            finished.stdout.len() == 100_003,
            "run {n}: {} of 100003 bytes",
            finished.stdout.len()
        );
        ensure!(
            finished.stdout.ends_with(b"end"),
            "run {n} lost its last words"
        );
    }
    passed()
}

fn closed_reader(env: &Env) -> Result<Verdict> {
    // `yes` must die of the broken pipe; the shell then tells on stderr.
    let mut container = env.start(&env.script("yes; echo code $? >&2")?)?;
    ensure!(container.stdout.line()? == "y", "no output");
    let (unused, _) = pipes::output(env.deadline())?;
    drop(std::mem::replace(&mut container.stdout, unused));
    let told = container.stderr.text()?;
    ensure!(
        told.lines()
            .any(|line| line.starts_with("code ") && line != "code 0"),
        "stderr is {told:?}"
    );
    container.expect_exit(Exit::Code(0))?;
    passed()
}

fn closed_by_process(env: &Env) -> Result<Verdict> {
    let mut container =
        env.start(&env.script("echo before; exec >&-; echo still >&2; read line")?)?;
    ensure!(
        container.stderr.line()? == "still",
        "stderr ended with stdout"
    );
    ensure!(container.stdout.text()? == "before\n", "stdout differs");
    container
        .expect_status("running")
        .context("closing stdout must not end the container")?;
    drop(container.stdin.take());
    container.wait()?;
    passed()
}

fn unread_stdin(env: &Env) -> Result<Verdict> {
    let mut container = env.start(&env.script("echo ready; exit 4")?)?;
    // The pipe stays open, with unread data in it, while the process ends.
    let mut stdin = container.stdin.take().context("stdin")?;
    let _ = stdin.write(&[b'x'; 1000]);
    container.expect_exit(Exit::Code(4))?;
    container.delete()?;
    drop(stdin);
    passed()
}

fn slow_reader(env: &Env) -> Result<Verdict> {
    // Two megabytes are more than every buffer on the way; nobody reads until the writer says on stderr
    // that it began.
    let script = "echo begun >&2; seq 300000 | md5sum >&2; seq 300000";
    let mut container = env.start(&env.script(script)?)?;
    ensure!(container.stderr.line()? == "begun", "no sign of the start");
    let sum = container.stderr.line()?;
    container
        .expect_status("running")
        .context("the writer must wait for its reader")?;
    let out = container.stdout.text()?;
    let wanted: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    ensure!(
        out == wanted,
        "{} bytes came instead of {} ({sum})",
        out.len(),
        wanted.len()
    );
    container.expect_exit(Exit::Code(0))?;
    passed()
}
