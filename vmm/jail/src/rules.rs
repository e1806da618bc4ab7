//! Which system calls each thread may make, and why.
//!
//! A descriptor is no condition: its number is whatever was free. So what may be done to one is limited by the request and
//! its flags, and which descriptors there are is the driver's choice: the process can't open any.

use crate::rule::Condition::{Has, Is, Lacks, Null, Own};
use crate::rule::Rule;

/// `PROT_EXEC`: no thread ever makes memory executable.
const EXECUTABLE: u32 = libc::PROT_EXEC as u32;

/// The flags of a thread as the C library starts it: it shares all with the others.
const THREAD: u32 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID) as u32;

/// A request of KVM's without an argument, or with a number.
const fn kvm(number: u32) -> Rule {
    Rule::request(0xae00 | number)
}

/// A request of KVM's that the kernel reads this many bytes for.
const fn kvm_write(number: u32, bytes: usize) -> Rule {
    Rule::request(1 << 30 | (bytes as u32) << 16 | 0xae00 | number)
}

/// A request of KVM's that the kernel writes this many bytes for.
const fn kvm_read(number: u32, bytes: usize) -> Rule {
    Rule::request(2 << 30 | (bytes as u32) << 16 | 0xae00 | number)
}

/// What any thread does, the language and the C library included.
pub const EVERYBODY: [Rule; 31] = [
    // Events, sockets, taps, the console, and what there is to say on standard error.
    Rule::call(libc::SYS_read),
    Rule::call(libc::SYS_write),
    Rule::call(libc::SYS_readv),
    Rule::call(libc::SYS_writev),
    // Whatever owns a descriptor closes it.
    Rule::call(libc::SYS_close),
    // In a debug build it looks before whether the descriptor is open.
    Rule::when(libc::SYS_fcntl, Is(1, libc::F_GETFD as u32)),
    // The heap grows and shrinks at its end,
    Rule::call(libc::SYS_brk),
    // beside it for what is large: memory of no file, and without code,
    Rule::when(libc::SYS_mmap, Has(3, libc::MAP_ANONYMOUS as u32)).and(Lacks(2, EXECUTABLE)),
    Rule::call(libc::SYS_munmap),
    // which grows by moving: its rights stay as they are.
    Rule::call(libc::SYS_mremap),
    // The heap's reserve is made usable as it is needed.
    Rule::when(libc::SYS_mprotect, Lacks(2, EXECUTABLE)),
    // The heap, stacks of threads that end, and the balloon give pages back.
    Rule::call(libc::SYS_madvise),
    // Locks and conditions.
    Rule::call(libc::SYS_futex),
    // A lock that is nearly free is spun for.
    Rule::call(libc::SYS_sched_yield),
    // Deadlines. Most clocks are read without the kernel, but not on every host.
    Rule::call(libc::SYS_clock_gettime),
    // A call that waits goes on after the process was stopped and continued.
    Rule::call(libc::SYS_restart_syscall),
    // Keys of hash tables are random.
    Rule::call(libc::SYS_getrandom),
    // Signals are blocked around what must not be disturbed,
    Rule::call(libc::SYS_rt_sigprocmask),
    // and what handles one returns.
    Rule::call(libc::SYS_rt_sigreturn),
    // The end of a thread: its signal stack goes first.
    Rule::call(libc::SYS_sigaltstack),
    Rule::call(libc::SYS_exit),
    // The end of all: the guest's end is the process's.
    Rule::call(libc::SYS_exit_group),
    // A panic ends the process by a signal to itself, whose default action it restores before.
    Rule::call(libc::SYS_getpid),
    Rule::call(libc::SYS_gettid),
    Rule::when(libc::SYS_tgkill, Own(0)),
    Rule::when(libc::SYS_rt_sigaction, Is(0, libc::SIGABRT as u32)),
    // Memory that is not there, a stack without room or a file that was cut: the handler of these two steps aside, so that
    // the signal ends the process.
    Rule::when(libc::SYS_rt_sigaction, Is(0, libc::SIGSEGV as u32)),
    Rule::when(libc::SYS_rt_sigaction, Is(0, libc::SIGBUS as u32)),
    // Answers to the driver and orders to the file server, over sockets that are connected.
    Rule::when(libc::SYS_sendto, Null(4)),
    Rule::when(libc::SYS_recvfrom, Null(4)),
    Rule::call(libc::SYS_sendmsg),
];

/// What the first thread does while the guest runs: it answers the driver. Virtual CPUs are stopped by signals to them, which
/// everybody may send within the process.
pub const MAIN: [Rule; 1] = [
    // The driver's requests.
    Rule::call(libc::SYS_recvmsg),
];

/// What devices do, whichever thread they are called by: the one that serves them, or that of a virtual CPU whose driver
/// starts or resets one.
pub const WORK: [Rule; 7] = [
    // What a device waits for, as long as it waits.
    Rule::call(libc::SYS_epoll_ctl),
    // Rate limits, and deadlines of connections and of the file server.
    Rule::call(libc::SYS_timerfd_settime),
    // vsock: one half of a connection ends. The file share: the file server is left.
    Rule::call(libc::SYS_shutdown),
    // The file share waits for the file server to let go of the guest's memory.
    Rule::call(libc::SYS_ppoll),
    Rule::call(libc::SYS_clock_nanosleep),
    // The network card has vhost-net tell of its failures.
    Rule::call(libc::SYS_eventfd2),
    // The balloon: memory that is a file gets a hole, and the file stays as long as it is.
    Rule::when(
        libc::SYS_fallocate,
        Is(
            1,
            (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u32,
        ),
    ),
];

/// What only the thread does that serves devices.
pub const DEVICES: [Rule; 9] = [
    // It waits for events,
    Rule::call(libc::SYS_epoll_wait),
    // and lets the guest go on first where that pays. Of itself only, and no policy but these two.
    Rule::when(libc::SYS_sched_getscheduler, Is(0, 0)),
    Rule::when(libc::SYS_sched_setscheduler, Is(0, 0)).and(Is(1, libc::SCHED_OTHER as u32)),
    Rule::when(libc::SYS_sched_setscheduler, Is(0, 0)).and(Is(1, libc::SCHED_BATCH as u32)),
    // Memory that comes and goes is a file in memory, as long as what is there of it.
    Rule::call(libc::SYS_ftruncate),
    // A disk's file may have been cut: its length is looked at.
    Rule::call(libc::SYS_fstat),
    // vsock: host programs come in by a socket that listens, if the driver has given one, and do not block.
    Rule::when(libc::SYS_accept4, Is(3, libc::SOCK_CLOEXEC as u32)),
    Rule::request(libc::FIONBIO as u32),
    // vsock: the driver sends sockets of host programs that the guest wants to be connected to.
    Rule::call(libc::SYS_recvmsg),
];

/// What those do that serve a disk by `io_uring`: the thread that serves devices, and that of a virtual CPU whose driver
/// resets one. What a ring does, no list sees: but nobody can make one any more, and those that there are were shut by whoever
/// made them (`vmm-blk`): they read and write one disk's file each, and what they may do cannot be changed.
pub const RING: [Rule; 1] = [
    // Requests begin, and are waited for. Nothing else: no signal mask, no other ring's number.
    Rule::when(libc::SYS_io_uring_enter, Lacks(3, !1)),
];

/// What the thread of a disk does: it reads and writes one file.
pub const DISK: [Rule; 5] = [
    Rule::call(libc::SYS_preadv2),
    Rule::call(libc::SYS_pwritev2),
    Rule::call(libc::SYS_fdatasync),
    // What the guest discards becomes a hole, and what it wants zeroed is so; the file stays as long as it is.
    Rule::when(
        libc::SYS_fallocate,
        Is(
            1,
            (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u32,
        ),
    ),
    Rule::when(
        libc::SYS_fallocate,
        Is(
            1,
            (libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE) as u32,
        ),
    ),
];

/// What it takes to plug a device in and out, of descriptors that came with a request. Only where the machine was made for
/// that is it still allowed to the first thread while the guest runs.
pub const PLUG: [Rule; 21] = [
    // KVM: an image in the guest's memory, and devices' queues.
    kvm_write(0x46, 32),
    kvm_write(0x79, 64),
    // An image is mapped to be read.
    Rule::when(libc::SYS_mmap, Is(2, libc::PROT_READ as u32)),
    // Disks and images: what they are, and how long.
    Rule::call(libc::SYS_fstat),
    Rule::call(libc::SYS_lseek),
    // The network card: what the tap is, and the length of its headers.
    Rule::request(libc::TUNGETIFF as u32),
    Rule::request(libc::TUNSETVNETHDRSZ as u32),
    // The network card: vhost-net becomes ours, and tells what it can do (VHOST_SET_OWNER, VHOST_GET_FEATURES).
    Rule::request(0xaf01),
    Rule::request(0x8008_af00),
    // A disk is open for what it is there for; taps and sockets do not block.
    Rule::when(libc::SYS_fcntl, Is(1, libc::F_GETFL as u32)),
    Rule::when(libc::SYS_fcntl, Is(1, libc::F_SETFL as u32)),
    Rule::request(libc::FIONBIO as u32),
    // Timers of devices.
    Rule::call(libc::SYS_timerfd_create),
    // A disk's thread. The C library tries clone3 first: that is answered elsewhere (`filter.rs`), as its flags can't be
    // seen.
    Rule::call(libc::SYS_clone3),
    Rule::when(libc::SYS_clone, Is(0, THREAD)),
    // A thread begins: what the C library keeps with the kernel, its name, the ends of its stack.
    Rule::call(libc::SYS_set_robust_list),
    Rule::call(libc::SYS_rseq),
    Rule::when(libc::SYS_prctl, Is(0, libc::PR_SET_NAME as u32)),
    Rule::call(libc::SYS_sched_getaffinity),
    // The next list.
    Rule::when(libc::SYS_prctl, Is(0, libc::PR_SET_NO_NEW_PRIVS as u32)),
    Rule::when(libc::SYS_seccomp, Is(0, libc::SECCOMP_SET_MODE_FILTER)),
];

/// What only the thread of a virtual CPU does.
pub const VCPU: [Rule; 2] = [
    // It runs.
    kvm(0x80),
    // The guest's kernel says which interrupt a device's is.
    kvm_write(0x6a, 8),
];

/// What else it takes to make a machine, before any guest has run.
pub const SETUP: [Rule; 27] = [
    // KVM: version, abilities and features, the size of what a virtual CPU shares with us.
    kvm(0x00),
    kvm(0x03),
    kvm(0x04),
    Rule::request(0xc008_ae05),
    // KVM: the machine, its task state, interrupt controllers, and virtual CPUs.
    kvm(0x01),
    kvm(0x47),
    kvm_write(0xa3, 104),
    kvm(0x41),
    // KVM: devices' interrupts.
    kvm_write(0x76, 32),
    // KVM: features, model-specific registers, and registers of a virtual CPU.
    kvm_write(0x90, 8),
    kvm_write(0x89, 8),
    kvm_read(0x83, 312),
    kvm_write(0x84, 312),
    kvm_write(0x82, 144),
    // What KVM shares with us, guest memory that is a file, images: memory of a file, without code.
    Rule::when(libc::SYS_mmap, Lacks(2, EXECUTABLE)),
    // Kernel and image: their length and kind, and the kernel's headers. Of what is open only.
    Rule::call(libc::SYS_pread64),
    Rule::when(libc::SYS_statx, Has(2, libc::AT_EMPTY_PATH as u32)),
    Rule::when(libc::SYS_newfstatat, Has(3, libc::AT_EMPTY_PATH as u32)),
    // Guest memory that the file server shares, and that nobody can make shorter.
    Rule::call(libc::SYS_memfd_create),
    Rule::call(libc::SYS_ftruncate),
    Rule::when(libc::SYS_fcntl, Is(1, libc::F_ADD_SEALS as u32)),
    // What came with a request is not inherited.
    Rule::when(libc::SYS_fcntl, Is(1, libc::F_SETFD as u32)),
    // The event loop.
    Rule::call(libc::SYS_epoll_create1),
    // Rings of disks, which are shut before anything is done with them. No guest runs yet; when one does, nobody can make
    // a ring or have one do anything else.
    Rule::call(libc::SYS_io_uring_setup),
    Rule::call(libc::SYS_io_uring_register),
    // The stack's end is found by its limit; a limit is set for files. Of this process only.
    Rule::when(libc::SYS_prlimit64, Is(0, 0)),
    // The signal that stops virtual CPUs is given a handler.
    Rule::call(libc::SYS_rt_sigaction),
];
