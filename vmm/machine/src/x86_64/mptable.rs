//! The table of processors and interrupts that a kernel without ACPI reads (MultiProcessor Specification 1.4, chapter 4).

use vm_memory::{Bytes, GuestAddress};
use vmm_virtio::Memory;

use super::layout;

/// The version of the specification.
const SPECIFICATION: u8 = 4;

/// The version of the local and I/O controllers that KVM has.
const APIC_VERSION: u8 = 0x14;

const ENABLED: u8 = 1;
const BOOTS: u8 = 2;

/// Kinds of interrupts.
const VECTORED: u8 = 0;
const NMI: u8 = 1;

/// The local controllers of all processors.
const EVERYWHERE: u8 = 0xff;

/// What the table tells of.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Processors, at most 64.
    pub processors: u8,
    /// Lines of the I/O controller: the first is on nothing, the others are those of devices.
    pub lines: u8,
}

/// Writes the table.
pub fn write(memory: &Memory, shape: Shape) -> Result<(), vm_memory::GuestMemoryError> {
    let table = table(shape);
    debug_assert!(layout::MP_TABLE + table.len() as u64 <= layout::MP_TABLE_END);
    let mut pointer = [0; 16];
    pointer[..4].copy_from_slice(b"_MP_");
    pointer[4..8].copy_from_slice(&(layout::MP_TABLE as u32).to_le_bytes());
    // In units of 16 bytes.
    pointer[8] = 1;
    pointer[9] = SPECIFICATION;
    pointer[10] = checksum(&pointer);
    memory.write_slice(&pointer, GuestAddress(layout::LOW_END))?;
    memory.write_slice(&table, GuestAddress(layout::MP_TABLE))
}

fn table(Shape { processors, lines }: Shape) -> Vec<u8> {
    let mut entries = Vec::new();
    let mut count = 0_u16;
    let mut add = |bytes: &[u8]| {
        entries.extend_from_slice(bytes);
        count += 1;
    };
    for number in 0..processors {
        let flags = if number == 0 {
            ENABLED | BOOTS
        } else {
            ENABLED
        };
        let mut entry = [0; 20];
        entry[1] = number;
        entry[2] = APIC_VERSION;
        entry[3] = flags;
        add(&entry);
    }
    let mut bus = [1, 0, 0, 0, 0, 0, 0, 0];
    bus[2..].copy_from_slice(b"ISA   ");
    add(&bus);
    let controller = processors;
    let mut entry = [2, controller, APIC_VERSION, ENABLED, 0, 0, 0, 0];
    entry[4..].copy_from_slice(&layout::IOAPIC.to_le_bytes());
    add(&entry);
    for line in 1..lines {
        add(&[3, VECTORED, 0, 0, 0, line, controller, line]);
    }
    add(&[4, NMI, 0, 0, 0, 0, EVERYWHERE, 1]);

    let mut table = vec![0; 44];
    table[..4].copy_from_slice(b"PCMP");
    let length = table.len() + entries.len();
    table[4..6].copy_from_slice(&(length as u16).to_le_bytes());
    table[6] = SPECIFICATION;
    table[8..16].copy_from_slice(b"COFFERDM");
    table[16..28].copy_from_slice(b"MICRO       ");
    table[34..36].copy_from_slice(&count.to_le_bytes());
    table[36..40].copy_from_slice(&layout::LAPIC.to_le_bytes());
    table.extend(entries);
    table[7] = checksum(&table);
    table
}

/// What makes the sum of all bytes zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0_u8, |sum, &byte| sum.wrapping_add(byte))
        .wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_adds_up_and_fits() {
        for (processors, lines) in [(1, 1), (2, 8), (64, 24)] {
            let table = table(Shape { processors, lines });
            assert_eq!(
                table.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte)),
                0
            );
            let length = u16::from_le_bytes([table[4], table[5]]);
            assert_eq!(usize::from(length), table.len());
            assert!(table.len() as u64 <= layout::MP_TABLE_END - layout::MP_TABLE);
            let mut entries = &table[44..];
            let mut count = 0;
            while let Some(&kind) = entries.first() {
                let size = if kind == 0 { 20 } else { 8 };
                entries = &entries[size..];
                count += 1;
            }
            assert_eq!(count, u16::from_le_bytes([table[34], table[35]]));
        }
    }
}
