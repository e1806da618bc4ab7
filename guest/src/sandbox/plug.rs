//! Devices that come and go while the guest runs.
//!
//! The machine has told the kernel of places that were empty at the boot, and that it left without a driver. When something is
//! there, or is to go, the host says which place; nothing happens by itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cofferdam_protocol::PlugDeviceResponse;
use tokio::time::{Instant, sleep};

/// Places, by the names that the kernel gives them in their order.
const PLACES: &str = "/sys/bus/platform/devices";

/// Where the kernel is told to look into a place, and to let go of what is there.
const DRIVER: &str = "/sys/bus/platform/drivers/virtio-mmio";

/// Virtio's number of an image in memory (1.3, 5.19.1), whose block device comes a little later.
const PMEM: &str = "0x001b";

/// How long that may take, and how often it is looked for.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(2);

/// How deep below a place its block device is.
const DEPTH: usize = 6;

/// Why a device did not come or go.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    /// The kernel was told of no such place at the boot.
    #[error("the guest has no place {place} for a device")]
    NoPlace {
        /// Its number.
        place: u32,
    },
    /// The place is empty.
    #[error("there is no device in place {place}")]
    Empty {
        /// Its number.
        place: u32,
    },
    /// Nothing in the kernel takes it.
    #[error("no driver takes the device in place {place}")]
    Driverless {
        /// Its number.
        place: u32,
    },
    /// The kernel has it, but makes no block device of it.
    #[error("no block device has come of the image in place {place} within {} s", PATIENCE.as_secs())]
    Silent {
        /// Its number.
        place: u32,
    },
    /// The kernel refuses.
    #[error("cannot {doing} the device in place {place}")]
    Kernel {
        /// What was to be done.
        doing: &'static str,
        /// Its number.
        place: u32,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Has the kernel take the device that is in this place now.
///
/// # Errors
/// When there is none, or none that a driver takes.
pub(crate) async fn plug(place: u32) -> Result<PlugDeviceResponse, DeviceError> {
    let folder = folder(place)?;
    // A device that came while the kernel booted was found then.
    if !folder.join("driver").exists() {
        tell("bind", place).await.map_err(|source| {
            // What the driver answers for an empty place.
            if source.raw_os_error() == Some(libc::ENODEV) {
                return DeviceError::Empty { place };
            }
            kernel("take", place)(source)
        })?;
    }
    let device = virtio(&folder)
        .map_err(kernel("find", place))?
        .filter(|device| device.join("driver").exists())
        .ok_or(DeviceError::Driverless { place })?;
    let kind = fs::read_to_string(device.join("device")).map_err(kernel("look at", place))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = block_device(&device, DEPTH).map_err(kernel("look at", place))? {
            return Ok(found);
        }
        if kind.trim_end() != PMEM {
            return Ok(PlugDeviceResponse::default());
        }
        if Instant::now() >= deadline {
            return Err(DeviceError::Silent { place });
        }
        sleep(PAUSE).await;
    }
}

/// Has the kernel let go of what is in this place; nothing happens when it has nothing there.
///
/// # Errors
/// When there is no such place, and what the kernel refuses.
pub(crate) async fn unplug(place: u32) -> Result<(), DeviceError> {
    if !folder(place)?.join("driver").exists() {
        return Ok(());
    }
    let done = tell("unbind", place).await;
    done.map_err(kernel("let go of", place))
}

fn kernel(doing: &'static str, place: u32) -> impl Fn(io::Error) -> DeviceError {
    move |source| DeviceError::Kernel {
        doing,
        place,
        source,
    }
}

fn folder(place: u32) -> Result<PathBuf, DeviceError> {
    let folder = Path::new(PLACES).join(name(place));
    if folder.exists() {
        Ok(folder)
    } else {
        Err(DeviceError::NoPlace { place })
    }
}

fn name(place: u32) -> String {
    format!("virtio-mmio.{place}")
}

/// The kernel answers when it is done, and may wait for what is under way on the device.
async fn tell(what: &'static str, place: u32) -> io::Result<()> {
    let told =
        tokio::task::spawn_blocking(move || fs::write(Path::new(DRIVER).join(what), name(place)));
    told.await.map_err(io::Error::other)?
}

/// The device of the place, as virtio's drivers have it.
fn virtio(folder: &Path) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_one = entry.file_name().to_str().is_some_and(|name| {
            name.strip_prefix("virtio")
                .is_some_and(|number| number.parse::<u32>().is_ok())
        });
        if is_one {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// The one block device below a folder: that of a disk is in its folder `block`, and that of an image a few folders deeper.
fn block_device(folder: &Path, depth: usize) -> io::Result<Option<PlugDeviceResponse>> {
    let Some(depth) = depth.checked_sub(1) else {
        return Ok(None);
    };
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Links lead out of here, and round in circles.
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let found = if entry.file_name() == "block" {
            named(&entry.path())?
        } else {
            block_device(&entry.path(), depth)?
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn named(folder: &Path) -> io::Result<Option<PlugDeviceResponse>> {
    let Some(entry) = fs::read_dir(folder)?.next().transpose()? else {
        return Ok(None);
    };
    let number = fs::read_to_string(entry.path().join("dev"))?;
    let parts = number.trim_end().split_once(':');
    let parts = parts.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let (major, minor) = parts.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some(PlugDeviceResponse {
        block_device: entry.file_name().to_string_lossy().into_owned(),
        major,
        minor,
        ..PlugDeviceResponse::default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_device_of_a_disk_and_of_an_image_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let virtio_folder = folder.path().join("virtio7");
        for (below, name, number) in [
            ("block", "vda", "254:16\n"),
            ("ndbus0/region0/namespace0.0/block", "pmem0", "259:1\n"),
        ] {
            let place = virtio_folder.join(below).join(name);
            fs::create_dir_all(&place).expect("a device");
            fs::write(place.join("dev"), number).expect("its number");
            let found = virtio(folder.path()).expect("a folder").expect("a device");
            let found = block_device(&found, DEPTH).expect("folders").expect("one");
            assert_eq!(found.block_device, name);
            assert_eq!(format!("{}:{}\n", found.major, found.minor), number);
            let top = below.split('/').next().expect("a name");
            fs::remove_dir_all(virtio_folder.join(top)).expect("gone");
        }
        assert_eq!(block_device(&virtio_folder, DEPTH).expect("a folder"), None);
    }
}
