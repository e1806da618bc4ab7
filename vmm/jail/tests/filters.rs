//! Each list, applied by a process of its own: what it is for works, and everything else is the end of the process.
#![expect(unsafe_code, reason = "system calls as they come, in a forked child")]
// UNSAFETY: children are forked by a process with several threads: they allocate only through the C library, which is
// made for that, and leave by _exit. Calls get valid pointers, or are meant to fail.

use std::ffi::c_long;
use std::ptr;

use vmm_jail::{Filter, Role, Violation};

/// How a child ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The call was made; what it returned was not looked at.
    Passed,
    /// The call was answered by an error of the kernel that no filter gives.
    Refused(i32),
    /// By this signal.
    Signal(i32),
    /// The filter could not be applied.
    Unconfined,
}

/// Those of every machine.
const ROLES: [Role; 4] = [Role::Setup, Role::Main, Role::Devices, Role::Vcpu];

/// Those of a machine that has disks, or takes devices while its guest runs.
const MORE: [Role; 2] = [Role::Plugger, Role::Disk];

/// Those of a machine whose disks are served by `io_uring`.
const RINGS: [Role; 2] = [Role::RingDevices, Role::RingVcpu];

/// The end of a child that keeps to a list and then makes a call.
fn child(role: Role, violation: Violation, call: &dyn Fn() -> c_long) -> End {
    // SAFETY: see the head of this file.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "forks");
    if pid == 0 {
        let code = match Filter::new(role, violation).and_then(|filter| filter.apply()) {
            Err(_) => 255,
            Ok(()) if call() >= 0 => 0,
            Ok(()) => std::io::Error::last_os_error()
                .raw_os_error()
                .unwrap_or(254),
        };
        // SAFETY: it ends the child.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: the child is this function's own.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    match (libc::WIFSIGNALED(status), libc::WEXITSTATUS(status)) {
        (true, _) => End::Signal(libc::WTERMSIG(status)),
        (false, 0) => End::Passed,
        (false, 255) => End::Unconfined,
        (false, error) => End::Refused(error),
    }
}

/// A call with up to four numbers or pointers.
fn call(number: c_long, arguments: [c_long; 4]) -> c_long {
    let [a, b, c, d] = arguments;
    // SAFETY: see the head of this file.
    unsafe { libc::syscall(number, a, b, c, d) }
}

fn map(protection: i32, flags: i32) -> c_long {
    // SAFETY: a new mapping at an address of the kernel's choice, of a child that ends soon.
    let address = unsafe { libc::mmap(ptr::null_mut(), 4096, protection, flags, -1, 0) };
    if address == libc::MAP_FAILED { -1 } else { 0 }
}

fn send_elsewhere() -> c_long {
    let address = [0_u8; 16];
    // SAFETY: the address is as long as that.
    let sent = unsafe { libc::sendto(0, ptr::null(), 0, 0, address.as_ptr().cast(), 16) };
    sent as c_long
}

/// A name, and a call that is made after the list was applied.
type Attempt = (&'static str, Box<dyn Fn() -> c_long>);

fn attempt(name: &'static str, number: c_long, arguments: [c_long; 4]) -> Attempt {
    (name, Box::new(move || call(number, arguments)))
}

const DATA: i32 = libc::PROT_READ | libc::PROT_WRITE;
const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
const RUN: c_long = 0xae80;
const CREATE_VM: c_long = 0xae01;

/// What nobody may do, whatever thread.
fn forbidden() -> Vec<Attempt> {
    let root = c"/".as_ptr() as c_long;
    let folder = c_long::from(libc::AT_FDCWD);
    let execute = |flags| move || map(DATA | libc::PROT_EXEC, flags);
    vec![
        attempt("open", libc::SYS_open, [root, 0, 0, 0]),
        attempt("openat", libc::SYS_openat, [folder, root, 0, 0]),
        attempt("openat2", libc::SYS_openat2, [folder, root, 0, 0]),
        attempt("stat", libc::SYS_stat, [root, 0, 0, 0]),
        attempt("unlink", libc::SYS_unlink, [root, 0, 0, 0]),
        attempt("getdents", libc::SYS_getdents64, [0, 0, 0, 0]),
        attempt("by handle", libc::SYS_open_by_handle_at, [0, 0, 0, 0]),
        attempt("socket", libc::SYS_socket, [1, 1, 0, 0]),
        attempt("socketpair", libc::SYS_socketpair, [1, 1, 0, 0]),
        attempt("connect", libc::SYS_connect, [0, 0, 0, 0]),
        attempt("bind", libc::SYS_bind, [0, 0, 0, 0]),
        attempt("accept, to be inherited", libc::SYS_accept4, [-1, 0, 0, 0]),
        // With a signal mask, as of a ring that is registered, and with the kernel's thread woken.
        attempt("a ring's mask", libc::SYS_io_uring_enter, [-1, 0, 0, 8]),
        attempt("a ring's number", libc::SYS_io_uring_enter, [-1, 0, 0, 16]),
        attempt("a ring's thread", libc::SYS_io_uring_enter, [-1, 0, 0, 2]),
        attempt("to run first", libc::SYS_sched_setscheduler, [0, 1, 0, 0]),
        attempt(
            "others' turn",
            libc::SYS_sched_setscheduler,
            [1, libc::SCHED_BATCH.into(), 0, 0],
        ),
        attempt("statx of a name", libc::SYS_statx, [folder, root, 0, 0]),
        ("send elsewhere", Box::new(send_elsewhere)),
        attempt("ptrace", libc::SYS_ptrace, [0, 0, 0, 0]),
        attempt("other memory", libc::SYS_process_vm_readv, [1, 0, 0, 0]),
        attempt("descriptors of others", libc::SYS_pidfd_getfd, [0, 0, 0, 0]),
        attempt("processes of others", libc::SYS_pidfd_open, [1, 0, 0, 0]),
        attempt("execve", libc::SYS_execve, [root, 0, 0, 0]),
        attempt("execveat", libc::SYS_execveat, [folder, root, 0, 0]),
        attempt("fork", libc::SYS_fork, [0; 4]),
        attempt("vfork", libc::SYS_vfork, [0; 4]),
        attempt(
            "clone a process",
            libc::SYS_clone,
            [c_long::from(libc::SIGCHLD), 0, 0, 0],
        ),
        attempt(
            "clone a namespace",
            libc::SYS_clone,
            [c_long::from(libc::CLONE_NEWUSER), 0, 0, 0],
        ),
        attempt(
            "unshare",
            libc::SYS_unshare,
            [c_long::from(libc::CLONE_NEWUSER), 0, 0, 0],
        ),
        attempt("setns", libc::SYS_setns, [0, 0, 0, 0]),
        attempt("mount", libc::SYS_mount, [0, root, 0, 0]),
        attempt("new mount", libc::SYS_fsopen, [0, 0, 0, 0]),
        attempt("pivot_root", libc::SYS_pivot_root, [root, root, 0, 0]),
        attempt("chroot", libc::SYS_chroot, [root, 0, 0, 0]),
        attempt("kill", libc::SYS_kill, [1, 0, 0, 0]),
        attempt("tkill", libc::SYS_tkill, [1, 0, 0, 0]),
        attempt("kill another", libc::SYS_tgkill, [1, 1, 0, 0]),
        attempt("setuid", libc::SYS_setuid, [0, 0, 0, 0]),
        attempt("capset", libc::SYS_capset, [0, 0, 0, 0]),
        attempt("bpf", libc::SYS_bpf, [0, 0, 0, 0]),
        attempt("perf", libc::SYS_perf_event_open, [0, 0, 0, 0]),
        attempt("keys", libc::SYS_add_key, [0, 0, 0, 0]),
        attempt("faults", libc::SYS_userfaultfd, [0, 0, 0, 0]),
        attempt("shared memory", libc::SYS_shmget, [0, 4096, 0, 0]),
        attempt(
            "be seen",
            libc::SYS_prctl,
            [c_long::from(libc::PR_SET_DUMPABLE), 1, 0, 0],
        ),
        attempt("undo the parent's death", libc::SYS_prctl, [1, 0, 0, 0]),
        attempt(
            "a terminal's input",
            libc::SYS_ioctl,
            [0, libc::TIOCSTI as c_long, 0, 0],
        ),
        attempt(
            "a tap",
            libc::SYS_ioctl,
            [0, libc::TUNSETIFF as c_long, 0, 0],
        ),
        attempt(
            "a tap's owner",
            libc::SYS_ioctl,
            [0, libc::TUNSETOWNER as c_long, 0, 0],
        ),
        // vhost-net's log, and KVM's devices and debugging.
        attempt("vhost's log", libc::SYS_ioctl, [0, 0x4008_af04, 0, 0]),
        attempt("KVM's devices", libc::SYS_ioctl, [0, 0xc00c_aee0, 0, 0]),
        attempt("debugging a guest", libc::SYS_ioctl, [0, 0x4048_ae9b, 0, 0]),
        // A number of the ABI with 32-bit pointers.
        attempt("x32", 0x4000_0000 | libc::SYS_read, [0, 0, 0, 0]),
        ("code", Box::new(execute(ANONYMOUS))),
        (
            "shared code",
            Box::new(execute(libc::MAP_SHARED | libc::MAP_ANONYMOUS)),
        ),
        (
            "data that becomes code",
            Box::new(|| {
                // SAFETY: it fails in any case, and the child ends.
                let end = unsafe { libc::sbrk(0) } as c_long & !4095;
                call(libc::SYS_mprotect, [end - 4096, 4096, 5, 0])
            }),
        ),
    ]
}

#[test]
fn what_nobody_may_do_is_the_end() {
    for role in ROLES.into_iter().chain(MORE).chain(RINGS) {
        for (name, attempt) in forbidden() {
            let end = child(role, Violation::Kill, &attempt);
            assert_eq!(end, End::Signal(libc::SIGSYS), "{role:?}: {name}");
        }
    }
}

#[test]
fn what_only_others_may_do_is_the_end() {
    let setup_only = [
        attempt(
            "memfd_create",
            libc::SYS_memfd_create,
            [c"".as_ptr() as c_long, 0, 0, 0],
        ),
        attempt("epoll_create1", libc::SYS_epoll_create1, [0; 4]),
        attempt("prlimit", libc::SYS_prlimit64, [0, 0, 0, 0]),
        attempt("another list", libc::SYS_seccomp, [1, 0, 0, 0]),
        attempt("a name", libc::SYS_prctl, [15, 0, 0, 0]),
        attempt("a thread", libc::SYS_clone, [0x3d_0f00, 0, 0, 0]),
        attempt("a thread by clone3", libc::SYS_clone3, [0, 0, 0, 0]),
        attempt("another handler", libc::SYS_rt_sigaction, [15, 0, 0, 8]),
        attempt("a machine", libc::SYS_ioctl, [-1, CREATE_VM, 0, 0]),
        attempt(
            "a tap's kind",
            libc::SYS_ioctl,
            [-1, libc::TUNGETIFF as c_long, 0, 0],
        ),
        attempt("not blocking", libc::SYS_fcntl, [0, 4, 0, 0]),
        ("memory of a file", Box::new(|| map(DATA, libc::MAP_SHARED))),
        attempt("a ring", libc::SYS_io_uring_setup, [0; 4]),
        attempt(
            "a ring that does more",
            libc::SYS_io_uring_register,
            [-1, 0, 0, 0],
        ),
    ];
    for (name, attempt) in setup_only {
        for role in [Role::Main, Role::Devices, Role::Vcpu]
            .into_iter()
            .chain(RINGS)
        {
            let end = child(role, Violation::Kill, &attempt);
            assert_eq!(end, End::Signal(libc::SIGSYS), "{role:?}: {name}");
        }
        let end = child(Role::Setup, Violation::Kill, &attempt);
        assert!(
            matches!(end, End::Passed | End::Refused(_)),
            "{name}: {end:?}"
        );
    }
    let of = |allowed: &[Role], (name, attempt): Attempt| {
        for role in ROLES {
            let end = child(role, Violation::Kill, &attempt);
            if allowed.contains(&role) {
                assert!(
                    matches!(end, End::Passed | End::Refused(_)),
                    "{role:?}: {name}: {end:?}"
                );
            } else {
                assert_eq!(end, End::Signal(libc::SIGSYS), "{role:?}: {name}");
            }
        }
    };
    let devices = [Role::Setup, Role::Devices];
    of(
        &devices,
        attempt("epoll_wait", libc::SYS_epoll_wait, [-1, 0, 0, 0]),
    );
    of(
        &devices,
        attempt("ftruncate", libc::SYS_ftruncate, [-1, 0, 0, 0]),
    );
    of(
        &devices,
        attempt(
            "a socket that does not block",
            libc::SYS_ioctl,
            [-1, libc::FIONBIO as c_long, 0, 0],
        ),
    );
    let inherits_not = c_long::from(libc::SOCK_CLOEXEC);
    of(
        &devices,
        attempt("accept", libc::SYS_accept4, [-1, 0, 0, inherits_not]),
    );
    for policy in [libc::SCHED_OTHER, libc::SCHED_BATCH] {
        of(
            &devices,
            attempt(
                "patience",
                libc::SYS_sched_setscheduler,
                [0, policy.into(), 0, 0],
            ),
        );
    }
    let vcpus = [Role::Setup, Role::Vcpu];
    of(&vcpus, attempt("run", libc::SYS_ioctl, [-1, RUN, 0, 0]));
    let receive = [Role::Setup, Role::Main, Role::Devices];
    of(
        &receive,
        attempt("recvmsg", libc::SYS_recvmsg, [-1, 0, 0, 0]),
    );
    let work = [Role::Setup, Role::Devices, Role::Vcpu];
    let punch = c_long::from(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE);
    of(
        &work,
        attempt("a hole", libc::SYS_fallocate, [-1, punch, 0, 4096]),
    );
    of(
        &[],
        attempt("a longer file", libc::SYS_fallocate, [-1, 0, 0, 4096]),
    );
    for request in vmm_net::IOCTLS {
        let request = c_long::from(request);
        of(
            &work,
            attempt("a card's request", libc::SYS_ioctl, [-1, request, 0, 0]),
        );
    }
    // What the upper half of a register holds is nothing to the kernel, and nothing to the list.
    of(
        &vcpus,
        attempt("run", libc::SYS_ioctl, [-1, RUN | 1 << 32, 0, 0]),
    );
}

/// What only those may do that serve disks by `io_uring`: with a ring that is there, begin requests and wait for them.
#[test]
fn requests_by_a_ring_are_for_machines_that_have_one() {
    for flags in [0, 1] {
        let (name, enter) = attempt("enter", libc::SYS_io_uring_enter, [-1, 0, 0, flags]);
        for role in ROLES.into_iter().chain(MORE) {
            let end = child(role, Violation::Kill, &enter);
            if role == Role::Setup {
                assert_eq!(end, End::Refused(libc::EBADF), "{role:?}: {name}");
            } else {
                assert_eq!(end, End::Signal(libc::SIGSYS), "{role:?}: {name}");
            }
        }
        for role in RINGS {
            let end = child(role, Violation::Kill, &enter);
            assert_eq!(end, End::Refused(libc::EBADF), "{role:?}: {name}");
        }
    }
    // Beside that they are what they are elsewhere.
    let wait = attempt("epoll_wait", libc::SYS_epoll_wait, [-1, 0, 0, 0]).1;
    let run = attempt("run", libc::SYS_ioctl, [-1, RUN, 0, 0]).1;
    for (role, waits) in [(Role::RingDevices, true), (Role::RingVcpu, false)] {
        let refused = |end: End| matches!(end, End::Passed | End::Refused(_));
        assert_eq!(refused(child(role, Violation::Kill, &wait)), waits);
        assert_eq!(refused(child(role, Violation::Kill, &run)), !waits);
    }
}

/// What a machine that takes devices may still do while its guest runs, and what it may not.
#[test]
fn who_plugs_devices_may_make_no_machine_and_open_nothing() {
    let passes = |role, (name, attempt): Attempt| {
        let end = child(role, Violation::Kill, &attempt);
        assert!(
            matches!(end, End::Passed | End::Refused(_)),
            "{role:?}: {name}: {end:?}"
        );
    };
    let ends = |role, (name, attempt): Attempt| {
        let end = child(role, Violation::Kill, &attempt);
        assert_eq!(end, End::Signal(libc::SIGSYS), "{role:?}: {name}");
    };
    let memory: c_long = 0x4020_ae46;
    let zero = c_long::from(libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE);
    passes(
        Role::Plugger,
        attempt("an image", libc::SYS_ioctl, [-1, memory, 0, 0]),
    );
    passes(
        Role::Plugger,
        (
            "to be read",
            Box::new(|| map(libc::PROT_READ, libc::MAP_SHARED)),
        ),
    );
    for role in MORE {
        passes(
            role,
            attempt("zeros", libc::SYS_fallocate, [-1, zero, 0, 1]),
        );
        passes(role, attempt("a write", libc::SYS_pwritev2, [-1, 0, 0, 0]));
        ends(
            role,
            ("memory of a file", Box::new(|| map(DATA, libc::MAP_SHARED))),
        );
        ends(
            role,
            attempt("a longer file", libc::SYS_fallocate, [-1, 0, 0, 1]),
        );
        ends(role, attempt("a cut", libc::SYS_ftruncate, [-1, 0, 0, 0]));
        ends(role, attempt("run", libc::SYS_ioctl, [-1, RUN, 0, 0]));
        ends(
            role,
            attempt("a machine", libc::SYS_ioctl, [-1, CREATE_VM, 0, 0]),
        );
        ends(role, attempt("a limit", libc::SYS_prlimit64, [0, 0, 0, 0]));
        ends(
            role,
            attempt("a handler", libc::SYS_rt_sigaction, [15, 0, 0, 8]),
        );
    }
    ends(
        Role::Disk,
        attempt("a thread", libc::SYS_clone, [0x3d_0f00, 0, 0, 0]),
    );
    ends(
        Role::Disk,
        attempt("an image", libc::SYS_ioctl, [-1, memory, 0, 0]),
    );
    ends(
        Role::Disk,
        attempt("recvmsg", libc::SYS_recvmsg, [-1, 0, 0, 0]),
    );
}

#[test]
fn everybody_may_live_and_die() {
    let own = || {
        // SAFETY: a signal that does nothing, to this very thread.
        unsafe {
            call(
                libc::SYS_tgkill,
                [libc::getpid().into(), libc::gettid().into(), 0, 0],
            )
        }
    };
    let allocate = || {
        let mut all = vec![vec![1_u8; 1 << 20]; 4];
        all.push(vec![2; 8 << 20]);
        all[0].resize(16 << 20, 3);
        all.iter().map(|each| c_long::from(each[0])).sum()
    };
    let lock = || {
        let pair = (std::sync::Mutex::new(()), std::sync::Condvar::new());
        let guard = pair.0.lock().expect("a lock");
        let waited = pair
            .1
            .wait_timeout(guard, std::time::Duration::from_millis(1));
        c_long::from(waited.is_ok())
    };
    // As where the C library does not know how to read it: that host's clock needs the kernel.
    let clock = || {
        let mut time = [0_i64; 2];
        let place = time.as_mut_ptr() as c_long;
        call(
            libc::SYS_clock_gettime,
            [libc::CLOCK_MONOTONIC.into(), place, 0, 0],
        )
    };
    let lives: [(&str, &dyn Fn() -> c_long); 5] = [
        ("the time", &clock),
        ("a signal to itself", &own),
        ("memory", &allocate),
        ("a condition", &lock),
        ("hash tables", &|| {
            c_long::from(std::collections::HashMap::<u8, u8>::new().is_empty())
        }),
    ];
    for role in ROLES {
        for (name, life) in lives {
            assert_eq!(
                child(role, Violation::Kill, life),
                End::Passed,
                "{role:?}: {name}"
            );
        }
        let abort = || std::process::abort();
        let end = child(role, Violation::Kill, &abort);
        assert_eq!(end, End::Signal(libc::SIGABRT), "{role:?}");
        // SAFETY: the address is in no mapping: that is what is asked for.
        let fault = || unsafe { ptr::without_provenance::<c_long>(8).read_volatile() };
        let end = child(role, Violation::Kill, &fault);
        assert_eq!(end, End::Signal(libc::SIGSEGV), "{role:?}");
    }
}

#[test]
fn a_debug_build_ends_by_the_same_signal() {
    for role in ROLES {
        let open = || call(libc::SYS_open, [c"/".as_ptr() as c_long, 0, 0, 0]);
        assert_eq!(
            child(role, Violation::Tell, &open),
            End::Signal(libc::SIGSYS)
        );
    }
}
