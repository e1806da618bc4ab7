//! What a virtual CPU is and where it begins.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::{Kvm, VcpuFd};
use vm_memory::{Bytes, GuestAddress};
use vmm_virtio::Memory;

use super::layout;
use crate::Error;

/// Bits of leaf 1 of CPUID.
mod features {
    /// ECX: monitor/mwait, which the host does not let a guest have.
    pub const MONITOR: u32 = 1 << 3;
    /// ECX: the timer of the local controller that is set in units of the time stamp counter.
    pub const TSC_DEADLINE: u32 = 1 << 24;
    /// ECX: there is a hypervisor.
    pub const HYPERVISOR: u32 = 1 << 31;
    /// EDX: several threads in one package.
    pub const THREADS: u32 = 1 << 28;
}

const MSR_MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1;
const MSR_MTRR_DEFAULT: u32 = 0x2ff;
/// On, and everything is cached by writing back.
const MTRR_WRITE_BACK: u64 = 1 << 11 | 6;

/// What all virtual CPUs of a machine have in common.
pub fn identification(kvm: &Kvm) -> Result<CpuId, Error> {
    kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(Error::kvm("ask for the processor's features"))
}

/// How many bits a guest's physical address has: as many as leaf 0x80000008 says, or as the first processors had.
pub fn address_bits(common: &CpuId) -> u32 {
    let leaf = common.as_slice().iter();
    let leaf = leaf.into_iter().find(|entry| entry.function == 0x8000_0008);
    leaf.map_or(36, |entry| entry.eax & 0xff)
}

/// Makes the virtual CPU what it is.
pub fn configure(vcpu: &VcpuFd, common: &CpuId, number: u8, processors: u8) -> Result<(), Error> {
    let cpuid = shaped(common, number, processors)?;
    vcpu.set_cpuid2(&cpuid)
        .map_err(Error::kvm("set a virtual CPU's features"))?;
    let entries = [
        (MSR_MISC_ENABLE, FAST_STRINGS),
        (MSR_MTRR_DEFAULT, MTRR_WRITE_BACK),
    ]
    .map(|(index, data)| kvm_msr_entry {
        index,
        data,
        ..kvm_msr_entry::default()
    });
    let msrs = Msrs::from_entries(&entries).map_err(|_| Error::Shape("too many registers"))?;
    // One that this host's processor lacks is skipped, and so are those behind it: none is needed by a guest that can
    // do without.
    vcpu.set_msrs(&msrs)
        .map_err(Error::kvm("set a virtual CPU's model-specific registers"))?;
    Ok(())
}

/// The features with what depends on the number of the virtual CPU: each is a core of one package.
fn shaped(common: &CpuId, number: u8, processors: u8) -> Result<CpuId, Error> {
    let mut cpuid = common.clone();
    let id = u32::from(number);
    let count = u32::from(processors);
    let bits = u32::from(processors).next_power_of_two().trailing_zeros();
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            1 => {
                entry.ecx &= !features::MONITOR;
                entry.ecx |= features::TSC_DEADLINE | features::HYPERVISOR;
                entry.ebx = entry.ebx & 0x0000_ffff | id << 24 | count << 16;
                if count > 1 {
                    entry.edx |= features::THREADS;
                } else {
                    entry.edx &= !features::THREADS;
                }
            }
            // Caches: the first levels are a core's own, the last is the package's.
            4 | 0x8000_001d => {
                let level = entry.eax >> 5 & 7;
                let sharing = if level >= 3 { count - 1 } else { 0 };
                entry.eax &= !(0xfff << 14);
                entry.eax |= sharing << 14;
                if entry.function == 4 {
                    entry.eax &= !(0x3f << 26);
                    entry.eax |= (count - 1) << 26;
                }
            }
            // Topology: threads of a core, then cores of the package.
            0xb | 0x1f => {
                entry.edx = id;
                (entry.eax, entry.ebx, entry.ecx) = match entry.index {
                    0 => (0, 1, 0x100),
                    1 => (bits, count, 0x201),
                    level => (0, 0, level),
                };
            }
            0x8000_0008 => entry.ecx = bits << 12 | (count - 1),
            0x8000_001e => {
                entry.eax = id;
                entry.ebx = id;
                entry.ecx = 0;
            }
            _ => {}
        }
    }
    Ok(cpuid)
}

/// Where the first virtual CPU begins: in 64-bit mode at the kernel's entry, as its boot protocol wants it. The others
/// wait until they are woken.
pub fn enter(vcpu: &VcpuFd, memory: &Memory, entry: u64) -> Result<(), Error> {
    write_tables(memory).map_err(|error| Error::System {
        action: "write the first page tables",
        source: std::io::Error::other(error),
    })?;
    let mut special = vcpu
        .get_sregs()
        .map_err(Error::kvm("read a virtual CPU's registers"))?;
    let code = segment(0x10, 0xb, true);
    let data = segment(0x18, 0x3, false);
    special.cs = code;
    for place in [
        &mut special.ds,
        &mut special.es,
        &mut special.fs,
        &mut special.gs,
        &mut special.ss,
    ] {
        *place = data;
    }
    special.gdt.base = layout::GDT;
    special.gdt.limit = 31;
    special.idt.base = 0;
    special.idt.limit = 0;
    // Protection, the numeric coprocessor's kind and paging; large pages; long mode, enabled and active.
    special.cr0 |= 1 | 1 << 4 | 1 << 31;
    special.cr4 |= 1 << 5;
    special.efer |= 1 << 8 | 1 << 10;
    special.cr3 = layout::PAGE_TABLES;
    vcpu.set_sregs(&special)
        .map_err(Error::kvm("set a virtual CPU's registers"))?;
    let registers = kvm_regs {
        rip: entry,
        rsi: layout::ZERO_PAGE,
        rsp: layout::STACK,
        rbp: layout::STACK,
        // The bit that is always set.
        rflags: 2,
        ..kvm_regs::default()
    };
    vcpu.set_regs(&registers)
        .map_err(Error::kvm("set a virtual CPU's registers"))
}

fn segment(selector: u16, kind: u8, long: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_: kind,
        present: 1,
        s: 1,
        l: u8::from(long),
        db: u8::from(!long),
        g: 1,
        ..kvm_segment::default()
    }
}

/// The segments as a table, and pages of 2 MiB that map the first GiB to itself.
fn write_tables(memory: &Memory) -> Result<(), vm_memory::GuestMemoryError> {
    // Flat, present, of ring 0: code of 64 bits, data of 32.
    let descriptors: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
    for (number, descriptor) in descriptors.into_iter().enumerate() {
        memory.write_obj(descriptor, GuestAddress(layout::GDT + number as u64 * 8))?;
    }
    const PRESENT_WRITABLE: u64 = 3;
    const LARGE: u64 = 1 << 7;
    let tables = layout::PAGE_TABLES;
    memory.write_obj((tables + 0x1000) | PRESENT_WRITABLE, GuestAddress(tables))?;
    memory.write_obj(
        (tables + 0x2000) | PRESENT_WRITABLE,
        GuestAddress(tables + 0x1000),
    )?;
    for number in 0..512_u64 {
        let page = number << 21 | LARGE | PRESENT_WRITABLE;
        memory.write_obj(page, GuestAddress(tables + 0x2000 + number * 8))?;
    }
    Ok(())
}
