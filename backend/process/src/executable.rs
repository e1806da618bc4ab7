//! A program that is started by its descriptor.
#![expect(unsafe_code, reason = "execveat, which rustix does not have")]
// UNSAFETY: the strings that the arrays of pointers point to are owned beside them, and are never changed.

use std::ffi::{CString, OsString, c_char};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::ptr;

use rustix::fs::{Mode, OFlags, open};

/// A program and its arguments, ready for exec without another allocation. It has no environment.
pub(crate) struct Executable {
    file: OwnedFd,
    /// What `arguments` points to.
    _strings: Vec<CString>,
    /// Ends with a null pointer.
    arguments: Vec<*const c_char>,
}

// SAFETY: the pointers go to strings on the heap that belong to the same value and are only read.
unsafe impl Send for Executable {}
// SAFETY: as above.
unsafe impl Sync for Executable {}

impl Executable {
    /// Opens a program, which is found by its path now and never again.
    pub fn open(path: &Path, arguments: &[OsString]) -> io::Result<Self> {
        let file = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let name = path.file_name().unwrap_or_default().as_bytes();
        let strings = std::iter::once(name.to_vec())
            .chain(arguments.iter().map(|word| word.clone().into_vec()))
            .map(CString::new)
            .collect::<Result<Vec<_>, _>>()?;
        let arguments = strings
            .iter()
            .map(|word| word.as_ptr())
            .chain([ptr::null()])
            .collect();
        Ok(Self {
            file,
            _strings: strings,
            arguments,
        })
    }

    /// Becomes the program; returns only why it could not. Async-signal-safe.
    pub fn execute(&self) -> rustix::io::Errno {
        let environment: [*const c_char; 1] = [ptr::null()];
        // SAFETY: both arrays end with a null pointer, and they and their strings outlive the call.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                self.file.as_raw_fd(),
                c"".as_ptr(),
                self.arguments.as_ptr(),
                environment.as_ptr(),
                libc::AT_EMPTY_PATH,
            )
        };
        let code = io::Error::last_os_error().raw_os_error();
        rustix::io::Errno::from_raw_os_error(code.unwrap_or(libc::EIO))
    }
}
