//! What the page says that is not measured.

/// How the figures come about.
pub const METHOD: &str = "\
# Benchmarks

`make bench` writes this page; its figures are of one run on one machine, which is described below. Times of different
runs, let alone of different machines, cannot be compared; ratios within a run can.

## Method

- Whole commands are timed, from the start of the process to its end, as an engine would see them. `run` includes the
  removal of the container. Nothing is warmed up but the host's page cache, the cached outcome of the probe for KVM and
  the template. Each container gets a machine of its own: with **cofferdam** a copy of the template, which is the normal
  way under emulation; with **booted** a fresh boot (`template = \"never\"`), as the first start has it.
- The **floor** is QEMU with our kernel and our guest image and none of our programs on the host: the memory and devices
  of a sandbox without the file share, from QEMU's start until the agent has answered the first call over the link. A
  runtime that boots a machine for each container cannot be faster than that; one that copies a booted one can.
- In each round everything is done once: the floor, then every runtime with the same bundle (a static busybox, six mounts,
  five namespaces, device rules). Ratios are medians of the ratios within a round, so that load from elsewhere hits both
  sides.
- Engines are Debian's containerd and dockerd, started for the measurement with folders of their own; each operation is
  done with runc and with ours in each round, and ratios are medians of the ratios within a round. `ctr run` and pods use
  the shim, `docker run` the OCI command. Pods are made by the calls that kubelet makes and have an address on a bridge
  (CNI); a pod has started when its first container has. Everything is in namespaces that end with the measurement.
- The network is measured between two namespaces: iperf3 with one stream, and ping. **QEMU on a tap** is the same kernel and
  the same emulated machine with iperf3 as its only program, on a tap without a bridge or traffic control: what an
  emulator can give.
- `exec` is the second one in its container. `delete` is timed without the end of the process, `delete --force` with it.
- State directories and bundles of all runtimes lie in memory (`/dev/shm`).
- PSS (proportional set size) counts a page that n processes share as one n-th for each. Processor time is the scheduler's
  count for all threads. A wake-up is a voluntary switch of one of its threads (`voluntary_ctxt_switches`).

";

/// Why a run takes longer than the floor. The counts were taken once, with a plugin for QEMU that counts blocks.
pub const WHERE: &str = "
## Where the time of a run goes

An emulator translates each block of guest code before it executes it for the first time, and that is most of a short
guest's life. Counts do not depend on how busy the host is (QEMU 7.2, 256 MiB, one virtual CPU, version 0.1.0):

| until | blocks translated | of these by programs | instructions executed, millions |
|---|---|---|---|
| the agent answers (the floor) | 54,800 | 6,600 | 39.0 |
| the guest is configured: clock, name, loopback, share mounted | 3,600 | 800 | 0.4 |
| the container is created | 20,600 | 10,800 | 9.6 |
| it is started | 2,600 | 600 | 0.9 |
| `true` has ended | 2,800 | 1,800 | 1.8 |
| file systems are written back | 300 | 0 | 0.2 |

After the floor, 29,900 further blocks, 0.55 of the floor's, are code that runs for the first time: namespaces, cgroups,
mounts and device rules in the kernel, reading the spec and libcontainer in the agent. They are a long flat list without a
single large item, so a freshly booted, emulated machine does not get below about 1.5 times the floor, whatever happens on
the host. The host's own part is 10 to 20 ms before QEMU starts and 20 to 40 ms to end it and to give its memory back.
Hardware virtualization translates nothing. A machine that starts from a template skips the floor, but has nothing
translated yet, so what it executes after that, the kernel's usual paths among it, costs somewhat more than after a boot.

`cofferdam --debug --log FILE run …` writes the timeline of a run, with the processor time that the VMM had used at each
step; `cofferdam debug boot-time` splits a boot into its parts.
";
