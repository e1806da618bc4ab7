//! The smallest EROFS image (Linux `Documentation/filesystems/erofs.rst`, `fs/erofs/erofs_fs.h`): one folder with one file.
//! Written by hand, so that the suite needs no program for it.

/// The name of the file.
pub(super) const NAME: &str = "file";

/// Bytes of a block, and its power of two.
const BLOCK: usize = 4096;
const BLOCK_BITS: u8 = 12;

/// Where the superblock is, and how long it is.
const SUPER: usize = 1024;
const SUPER_LENGTH: usize = 128;

/// Bytes of a slot for inodes, of which there is one each. The first is right behind the superblock.
const SLOT: usize = 32;
const FOLDER: usize = (SUPER + SUPER_LENGTH) / SLOT;
const FILE: usize = FOLDER + 1;

/// Kinds of what is in a folder.
const IS_FILE: u8 = 1;
const IS_FOLDER: u8 = 2;

/// An image whose file has this content, of less than a block.
pub(super) fn image(content: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 3 * BLOCK];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(SUPER, &0xe0f5_e1e2_u32.to_le_bytes());
    put(SUPER + 12, &[BLOCK_BITS]);
    put(SUPER + 14, &(FOLDER as u16).to_le_bytes());
    // Inodes, and blocks.
    put(SUPER + 16, &2_u64.to_le_bytes());
    put(SUPER + 36, &3_u32.to_le_bytes());
    let folder = folder(&[
        (".", FOLDER, IS_FOLDER),
        ("..", FOLDER, IS_FOLDER),
        (NAME, FILE, IS_FILE),
    ]);
    for (slot, mode, links, block, data) in [
        (FOLDER, 0o040_755_u16, 2_u16, 1_u32, &folder[..]),
        (FILE, 0o100_644, 1, 2, content),
    ] {
        // Of the short form, with its data in blocks of their own.
        let inode = slot * SLOT;
        put(inode + 4, &mode.to_le_bytes());
        put(inode + 6, &links.to_le_bytes());
        put(inode + 8, &(data.len() as u32).to_le_bytes());
        put(inode + 16, &block.to_le_bytes());
        put(inode + 20, &(slot as u32).to_le_bytes());
        put(block as usize * BLOCK, data);
    }
    image
}

/// What is in a folder, in the order of the names: all entries, then all names.
fn folder(entries: &[(&str, usize, u8)]) -> Vec<u8> {
    let mut folder = Vec::new();
    let mut name_at = entries.len() * 12;
    for &(name, slot, kind) in entries {
        folder.extend((slot as u64).to_le_bytes());
        folder.extend((name_at as u16).to_le_bytes());
        folder.extend([kind, 0]);
        name_at += name.len();
    }
    for (name, ..) in entries {
        folder.extend(name.as_bytes());
    }
    folder
}
