//! What a spec forbids and grants.

use serde_json::{Value, json};

use super::machine;
use crate::machine::Machine;
use crate::session::{Done, script, spec};

const STATUS: &str = "grep -E '^(Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' \
                      /proc/self/status | tr -s '\\t ' ' '";

/// Runs the script as a container's first process, and as a later process in another container
/// with the same spec.
async fn both(machine: &Machine, spec: &Value) -> [Done; 2] {
    let first = machine.run("first", spec).await.expect("run");
    let mut long = spec.clone();
    long["process"]["args"] = json!(["sleep", "100"]);
    let _streams = machine.create("long", &long).await.expect("created");
    machine.start("long").await.expect("started");
    let later = machine
        .exec("long", "e", &spec["process"])
        .await
        .expect("run");
    machine.delete("long").await;
    [first, later]
}

fn with_filter(mut spec: Value) -> Value {
    spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 },
            { "names": ["kill"], "action": "SCMP_ACT_ERRNO",
              "args": [{ "index": 1, "value": 12, "op": "SCMP_CMP_EQ" }] },
        ],
    });
    spec
}

#[tokio::test]
async fn the_filter_holds_in_every_process() {
    let machine = machine!();
    let text = format!("{STATUS}; mkdir /tmp/x; kill -12 $$ && echo bad; kill -0 $$ && echo good");
    for no_new_privs in [None, Some(false), Some(true)] {
        for uid in [0, 33] {
            let mut spec = with_filter(script(&text));
            let process = spec["process"].as_object_mut().expect("process");
            process.remove("noNewPrivileges");
            if let Some(value) = no_new_privs {
                process.insert("noNewPrivileges".to_owned(), json!(value));
            }
            spec["process"]["user"] = json!({ "uid": uid, "gid": uid });
            for done in both(&machine, &spec).await {
                let out = &done.stdout;
                assert!(
                    out.contains("Seccomp: 2"),
                    "{no_new_privs:?} {uid}: {done:?}"
                );
                let bit = if no_new_privs == Some(true) {
                    "NoNewPrivs: 1"
                } else {
                    "NoNewPrivs: 0"
                };
                assert!(out.contains(bit), "{no_new_privs:?} {uid}: {done:?}");
                assert!(done.stderr.contains("not supported"), "{done:?}");
                assert!(out.contains("good") && !out.contains("bad"), "{done:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_default_profile_forbids_what_capabilities_would_allow() {
    let machine = machine!();
    // The first line fails without the profile's denials, the second shows that little else is forbidden.
    let text = "cat /proc/self/attr/current; \
                mkdir -p /tmp/m && mount -t tmpfs none /tmp/m && echo mounted; \
                umount /dev/shm && echo unmounted; \
                echo 1 > /proc/sys/vm/overcommit_memory && echo set; \
                echo box2 > /proc/sys/kernel/hostname && echo named; \
                echo x > /tmp/file && kill -0 $$ && echo fine";
    let mut spec = script(text);
    for set in ["bounding", "effective", "permitted"] {
        spec["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
    }
    spec["linux"]["readonlyPaths"] = json!([]);
    for no_new_privs in [false, true] {
        spec["process"]["noNewPrivileges"] = json!(no_new_privs);
        spec["process"]["apparmorProfile"] = json!("cofferdam-default");
        for done in both(&machine, &spec).await {
            assert_eq!(
                done.stdout, "cofferdam-default (enforce)\nnamed\nfine\n",
                "{done:?}"
            );
        }
        spec["process"]["apparmorProfile"] = json!("");
        for done in both(&machine, &spec).await {
            assert_eq!(
                done.stdout, "unconfined\nmounted\nunmounted\nset\nnamed\nfine\n",
                "{done:?}"
            );
        }
    }
    spec["process"]["apparmorProfile"] = json!("my-nginx");
    let refused = machine.try_create("x", &spec).await.err().expect("refused");
    assert!(refused.to_string().contains("apparmorProfile"), "{refused}");
}

/// A filter that is longer than the kernel takes (BPF_MAXINSNS).
#[tokio::test]
async fn a_filter_that_cannot_be_loaded_fails_the_start() {
    let machine = machine!();
    let rules: Vec<Value> = (0..3000_u64)
        .map(|value| {
            json!({ "names": ["personality"], "action": "SCMP_ACT_ERRNO",
                    "args": [{ "index": 0, "value": value * 0x1_0000_0001_u64, "op": "SCMP_CMP_EQ" }] })
        })
        .collect();
    for no_new_privs in [false, true] {
        let mut spec = script("echo ran without a filter");
        spec["process"]["noNewPrivileges"] = json!(no_new_privs);
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": rules,
        });
        let failure = machine.run("long", &spec).await.expect_err("refused");
        assert!(
            failure.message.contains("seccomp"),
            "{no_new_privs}: {failure:?}"
        );
    }
}

#[tokio::test]
async fn users_and_capabilities_are_those_of_the_spec() {
    let machine = machine!();
    for done in both(&machine, &script(STATUS)).await {
        let out = done.stdout;
        // AUDIT_WRITE 29, KILL 5, NET_BIND_SERVICE 10.
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert!(out.contains(&format!("{set}: 0000000020000420")), "{out}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert!(out.contains(&format!("{set}: 0000000000000000")), "{out}");
        }
        assert!(
            out.contains("Uid: 0 0 0 0") && out.contains("Seccomp: 0"),
            "{out}"
        );
    }

    let mut user = script(&format!("{STATUS}; umask; echo $HOME; pwd; ulimit -n"));
    user["process"]["user"] =
        json!({ "uid": 33, "gid": 34, "additionalGids": [5, 6], "umask": 0o27 });
    user["process"]["cwd"] = json!("/made/by/runtime");
    for done in both(&machine, &user).await {
        let out = done.stdout;
        assert!(
            out.contains("Uid: 33 33 33 33") && out.contains("Gid: 34 34 34 34"),
            "{out}"
        );
        assert!(out.contains("Groups: 5 6"), "{out}");
        assert!(out.contains("CapEff: 0000000000000000"), "{out}");
        assert!(out.contains("CapBnd: 0000000020000420"), "{out}");
        assert!(
            out.ends_with("0027\n/data\n/made/by/runtime\n1024\n"),
            "{out}"
        );
    }

    let mut none = script(STATUS);
    none["process"]
        .as_object_mut()
        .expect("process")
        .remove("capabilities");
    for done in both(&machine, &none).await {
        assert!(
            done.stdout.contains("CapBnd: 0000000000000000"),
            "{}",
            done.stdout
        );
    }
    let mut ambient = script(STATUS);
    let kill = json!(["CAP_KILL"]);
    ambient["process"]["capabilities"] = json!({
        "bounding": kill, "permitted": kill, "inheritable": kill, "ambient": kill, "effective": kill,
    });
    ambient["process"]["user"] = json!({ "uid": 33, "gid": 33 });
    for done in both(&machine, &ambient).await {
        assert!(
            done.stdout.contains("CapEff: 0000000000000020"),
            "{}",
            done.stdout
        );
    }
}

#[tokio::test]
async fn signals_do_what_they_do_by_default() {
    let machine = machine!();
    for done in both(
        &machine,
        &script("exec grep -E '^Sig(Ign|Blk)' /proc/self/status"),
    )
    .await
    {
        assert_eq!(
            done.stdout.matches("\t0000000000000000").count(),
            2,
            "{done:?}"
        );
    }
}

#[tokio::test]
async fn the_root_is_the_containers_own() {
    let machine = machine!();
    let mut spec = script(
        "hostname; cat /proc/self/oom_score_adj; cat /proc/sys/net/ipv4/ping_group_range; \
         cat /proc/keys | wc -c; echo x > /proc/sys/kernel/hostname; touch /x; touch /data/y && echo data; \
         cat /file; touch /file; cat /proc/self/cgroup; ls /sys/fs/cgroup | grep -c memory.max; \
         ls -d /dev/null /dev/ptmx /dev/fd /dev/shm /dev/mqueue /dev/special; \
         echo $0 $HOME; ps | wc -l; cat /proc/sys/kernel/shmmni",
    );
    spec["root"]["readonly"] = json!(true);
    spec["process"]["oomScoreAdj"] = json!(100);
    spec["linux"]["sysctl"] = json!({ "net.ipv4.ping_group_range": "0 7", "kernel.shmmni": "777" });
    spec["linux"]["devices"] = json!([
        { "path": "/dev/special", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 0, "gid": 0 },
    ]);
    let mounts = spec["mounts"].as_array_mut().expect("mounts");
    mounts.push(json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs" }));
    mounts.push(
        json!({ "destination": "/file", "source": "/rootfs/etc/passwd",
                        "options": ["rbind", "ro"] }),
    );
    let done = machine.run("first", &spec).await.expect("run");
    let out = &done.stdout;
    assert!(
        out.starts_with("box\n100\n0\t7\n0\ndata\nroot:x:0:0"),
        "{done:?}"
    );
    assert!(out.contains("0::/\n"), "its cgroup is its root: {out}");
    assert!(
        out.contains("/dev/special") && out.contains("sh /root\n"),
        "{done:?}"
    );
    assert!(out.ends_with("\n777\n"), "{out}");
    for refused in ["/x: Read-only", "/file: Read-only", "hostname: Read-only"] {
        assert!(done.stderr.contains(refused), "{refused}: {}", done.stderr);
    }
}

#[tokio::test]
async fn devices_are_those_that_were_granted() {
    let machine = machine!();
    // 1:11 is /dev/kmsg, 1:9 /dev/urandom.
    let text = "mknod /tmp/kmsg c 1 11 && mknod /tmp/random c 1 9; \
                head -c 1 /tmp/random | wc -c; dd if=/tmp/kmsg of=/dev/null bs=8k count=1 2>&1";
    let mut spec = script(text);
    for set in ["bounding", "effective", "permitted"] {
        spec["process"]["capabilities"][set] =
            json!(["CAP_MKNOD", "CAP_SYSLOG", "CAP_DAC_OVERRIDE"]);
    }
    for done in both(&machine, &spec).await {
        assert!(done.stdout.starts_with("1\n"), "{done:?}");
        assert!(done.stdout.contains("Operation not permitted"), "{done:?}");
        machine
            .run(
                "clean",
                &script("rm -f /tmp/kmsg /tmp/random; busybox rm -f /tmp/kmsg /tmp/random"),
            )
            .await
            .expect("cleaned");
    }
    spec["linux"]["resources"]["devices"] = json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" },
    ]);
    let done = machine.run("granted", &spec).await.expect("run");
    assert!(!done.stdout.contains("not permitted"), "{done:?}");
}

#[tokio::test]
async fn a_user_namespace_maps_its_users() {
    let machine = machine!();
    let mut spec = script(
        "id -u; cat /proc/self/uid_map | tr -s ' '; echo x > /dev/stdout; \
                           ls /sys/class/net; head -c 1 /dev/zero | wc -c; hostname",
    );
    let linux = &mut spec["linux"];
    linux["namespaces"]
        .as_array_mut()
        .expect("list")
        .push(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    linux["uidMappings"] = map.clone();
    linux["gidMappings"] = map;
    for done in both(&machine, &spec).await {
        assert!(
            done.stdout.starts_with("0\n 0 100000 65536\nx\n"),
            "{done:?}"
        );
        assert!(done.stdout.ends_with("lo\n1\nbox\n"), "{done:?}");
    }
}

#[tokio::test]
async fn a_hook_runs_in_the_container_before_the_command() {
    let machine = machine!();
    let mut hooked = spec(&["cat", "/tmp/hooked"]);
    hooked["hooks"] = json!({ "startContainer": [
        { "path": "/bin/sh", "args": ["sh", "-c", "grep -c ociVersion > /tmp/hooked"] },
    ]});
    let done = machine.run("a", &hooked).await.expect("run");
    assert_eq!(done.stdout, "1\n");
    hooked["hooks"]["startContainer"][0]["args"][2] = json!("exit 1");
    let failure = machine.run("a", &hooked).await.expect_err("a failure");
    println!("hook: {}", failure.message);
    hooked["hooks"] = json!({ "prestart": [{ "path": "/bin/true" }] });
    let refused = machine
        .try_create("a", &hooked)
        .await
        .err()
        .expect("refused")
        .to_string();
    assert!(refused.contains("hooks.prestart"), "{refused}");
}
