//! Bundles that are wrong: each is refused, the message names the thing, and nothing is left.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::case::{Case, Verdict, case, passed, skipped};
use crate::environment::Env;
use crate::reaper::Exit;

/// The cases of this group.
pub const CASES: &[Case] = &[
    case("malformed/missing-bundle", missing_bundle),
    case("malformed/missing-config", missing_config),
    case("malformed/config-is-a-directory", config_is_directory),
    case("malformed/config-is-a-dangling-link", config_dangles),
    case("malformed/invalid-json", invalid_json),
    case("malformed/wrong-types", wrong_types),
    case("malformed/missing-process", missing_process),
    case("malformed/missing-args", missing_args),
    case("malformed/missing-root", missing_root),
    case("malformed/unknown-version", unknown_version),
    case("malformed/relative-working-directory", relative_cwd),
    case("malformed/terminal-without-console-socket", no_console),
    case("malformed/console-socket-without-terminal", no_terminal),
    case("malformed/console-socket-absent", absent_console),
    case("malformed/unknown-namespace", unknown_namespace),
    case("malformed/missing-namespace-path", missing_namespace_path),
    case(
        "malformed/host-name-without-namespace",
        hostname_without_namespace,
    ),
    case("malformed/unknown-seccomp-action", unknown_seccomp_action),
    case("malformed/unknown-fields-are-ignored", unknown_fields),
];

/// `create` with `flags` must refuse the bundle, name one of `things`, and leave nothing.
fn refused_with(env: &Env, bundle: &Bundle, flags: &[&str], things: &[&str]) -> Result<()> {
    let pid_file = bundle.path.join("pid");
    let (path, file) = (bundle.path.to_string_lossy(), pid_file.to_string_lossy());
    let finished = env
        .runtime
        .call(["create", "--bundle", &path, "--pid-file", &file])
        .args(flags)
        .args(&[&env.id()])
        .run()?;
    finished.refused(things)?;
    env.nothing_left()
}

fn refused(env: &Env, bundle: &Bundle, things: &[&str]) -> Result<()> {
    bundle.write()?;
    refused_with(env, bundle, &[], things)
}

fn missing_bundle(env: &Env) -> Result<Verdict> {
    let id = env.id();
    let gone = env.dir.join("no-such-bundle");
    env.runtime
        .call(["create", "--bundle", &gone.to_string_lossy(), &id])
        .run()?
        .refused(&["no-such-bundle"])?;
    env.nothing_left()?;
    passed()
}

fn missing_config(env: &Env) -> Result<Verdict> {
    refused_with(env, &env.bundle()?, &[], &["config.json"])?;
    passed()
}

fn config_is_directory(env: &Env) -> Result<Verdict> {
    let bundle = env.bundle()?;
    fs::create_dir(bundle.path.join("config.json"))?;
    refused_with(env, &bundle, &[], &["config.json", "directory"])?;
    passed()
}

fn config_dangles(env: &Env) -> Result<Verdict> {
    let bundle = env.bundle()?;
    symlink("nowhere", bundle.path.join("config.json"))?;
    refused_with(env, &bundle, &[], &["config.json"])?;
    passed()
}

fn invalid_json(env: &Env) -> Result<Verdict> {
    let bundle = env.bundle()?;
    for text in ["", "{", "[]", "nonsense", "{\"ociVersion\": }"] {
        bundle.write_text(text.as_bytes())?;
        let things = [
            "config.json",
            "json",
            "parse",
            "invalid character",
            "configuration",
            "lexical",
            "eof",
        ];
        refused_with(env, &bundle, &[], &things)
            .map_err(|error| error.context(format!("config.json is {text:?}")))?;
    }
    passed()
}

fn wrong_types(env: &Env) -> Result<Verdict> {
    if env.is_reference("crun")? {
        // It would even run a container without namespaces, in the host's.
        return skipped("crun ignores values of wrong types");
    }
    for (pointer, value) in [
        ("/process/args", json!("/bin/true")),
        ("/process/user/uid", json!("root")),
        ("/process/user/uid", json!(5_000_000_000_u64)),
        ("/process/terminal", json!("no")),
        ("/process/env", json!({"PATH": "/bin"})),
        ("/root", json!("rootfs")),
        ("/mounts", json!({"destination": "/mnt"})),
        ("/linux/namespaces", json!("pid")),
        ("/linux/resources/memory/limit", json!("64M")),
        ("/hostname", json!(7)),
    ] {
        let mut bundle = env.bundle()?;
        bundle.set(pointer, value.clone()).write()?;
        let path = bundle.path.to_string_lossy().into_owned();
        let finished = env
            .runtime
            .call(["create", "--bundle", &path, &env.id()])
            .run()?;
        ensure!(
            finished.exit != Exit::Code(0),
            "{pointer} = {value} was accepted"
        );
        ensure!(
            !finished.stderr.trim().is_empty(),
            "{pointer} = {value} was refused without a message"
        );
        env.nothing_left()?;
    }
    passed()
}

fn missing_process(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    bundle.remove("/process");
    if env.is_reference("crun")? {
        return skipped("crun's message does not name what is missing");
    }
    refused(env, &bundle, &["process"])?;
    passed()
}

fn missing_args(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    if env.is_reference("crun")? {
        return skipped("crun notices it only at start");
    }
    bundle.remove("/process/args");
    refused(env, &bundle, &["args", "process"])?;
    bundle.set("/process/args", json!([]));
    refused(env, &bundle, &["args", "process"])?;
    passed()
}

fn missing_root(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    bundle.remove("/root");
    refused(env, &bundle, &["root"])?;
    passed()
}

fn unknown_version(env: &Env) -> Result<Verdict> {
    for version in [json!("9.0.0"), json!("nonsense"), json!("")] {
        let mut bundle = env.bundle()?;
        bundle.set("/ociVersion", version.clone()).write()?;
        let path = bundle.path.to_string_lossy().into_owned();
        let finished = env
            .runtime
            .call(["create", "--bundle", &path, &env.id()])
            .run()?;
        if finished.exit == Exit::Code(0)
            && (env.is_reference("runc")? || env.is_reference("crun")?)
        {
            return skipped("this runtime does not look at ociVersion");
        }
        finished.refused(&["version"])?;
        env.nothing_left()?;
    }
    passed()
}

fn relative_cwd(env: &Env) -> Result<Verdict> {
    for cwd in ["tmp", ""] {
        let mut bundle = env.bundle()?;
        bundle.set("/process/cwd", json!(cwd)).write()?;
        let path = bundle.path.to_string_lossy().into_owned();
        let finished = env
            .runtime
            .call(["create", "--bundle", &path, &env.id()])
            .run()?;
        if finished.exit == Exit::Code(0) && env.is_reference("crun")? {
            return skipped("crun takes a relative working directory as relative to the root");
        }
        finished.refused(&["cwd", "working directory"])?;
        env.nothing_left()?;
    }
    passed()
}

fn no_console(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    bundle.set("/process/terminal", json!(true));
    refused(
        env,
        &bundle,
        &["console socket", "console-socket", "terminal", "tty"],
    )?;
    passed()
}

fn no_terminal(env: &Env) -> Result<Verdict> {
    let bundle = env.bundle()?;
    let socket = env.console()?;
    bundle.write()?;
    let path = bundle.path.to_string_lossy();
    let id = env.id();
    let finished = env
        .runtime
        .call([
            "create",
            "--bundle",
            &path,
            "--console-socket",
            &socket.path(),
            &id,
        ])
        .run()?;
    if finished.exit == Exit::Code(0) && env.is_reference("crun")? {
        return skipped("crun ignores a console socket that is not needed");
    }
    finished.refused(&["console socket", "console-socket"])?;
    env.nothing_left()?;
    passed()
}

fn absent_console(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    bundle.set("/process/terminal", json!(true)).write()?;
    let socket = env.dir.join("absent");
    let things = ["absent", "console", "no such file"];
    refused_with(
        env,
        &bundle,
        &["--console-socket", &socket.to_string_lossy()],
        &things,
    )?;
    passed()
}

fn unknown_namespace(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    bundle.push("/linux/namespaces", json!({"type": "nonsense"}));
    refused(env, &bundle, &["nonsense", "namespace"])?;
    passed()
}

fn missing_namespace_path(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    let Value::Array(mut namespaces) = bundle.get("/linux/namespaces") else {
        anyhow::bail!("no namespaces")
    };
    for namespace in &mut namespaces {
        if namespace["type"] == "network" {
            namespace["path"] = json!("/no/such/namespace");
        }
    }
    bundle.set("/linux/namespaces", Value::Array(namespaces));
    refused(env, &bundle, &["/no/such/namespace"])?;
    passed()
}

fn hostname_without_namespace(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    let Value::Array(mut namespaces) = bundle.get("/linux/namespaces") else {
        anyhow::bail!("no namespaces")
    };
    namespaces.retain(|namespace| namespace["type"] != "uts");
    bundle.set("/linux/namespaces", Value::Array(namespaces));
    refused(env, &bundle, &["uts", "hostname"])?;
    passed()
}

fn unknown_seccomp_action(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    bundle.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_NONSENSE"}),
    );
    refused(env, &bundle, &["SCMP_ACT_NONSENSE", "seccomp"])?;
    passed()
}

fn unknown_fields(env: &Env) -> Result<Verdict> {
    // runtime-spec: unknown properties must not be an error.
    let mut bundle = env.script("echo fine")?;
    bundle
        .set("/futureField", json!({"a": 1}))
        .set("/process/futureField", json!([1]))
        .set("/linux/futureField", json!("x"));
    ensure!(env.run_text(&bundle)? == "fine", "it did not run");
    passed()
}
