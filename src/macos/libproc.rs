//! What macOS tells of a process: libproc's functions and one `sysctl`, as bytes. Only processes of the
//! same user are seen.

#[cfg(target_os = "macos")]
pub use system::{arguments, descriptors, directories, facts, path, pids, socket};

#[cfg(target_os = "macos")]
mod system {
    #![expect(unsafe_code, reason = "C functions that rustix and nix don't have")]

    use std::ffi::{c_int, c_uint, c_void};
    use std::ptr;

    use super::super::procinfo::{DIRECTORIES, FACTS, SOCKET};

    // tools/macos/layout.c holds these, and the layouts, to the system's own headers.
    const PROC_PIDLISTFDS: c_int = 1;
    const PROC_PIDTBSDINFO: c_int = 3;
    const PROC_PIDVNODEPATHINFO: c_int = 9;
    const PROC_PIDFDSOCKETINFO: c_int = 3;
    const CTL_KERN: c_int = 1;
    const KERN_PROCARGS2: c_int = 49;
    const MAX_PATH: usize = 4096;
    /// What the kernel allows for arguments and environment together.
    const MAX_ARGUMENTS: usize = 1024 * 1024;

    unsafe extern "C" {
        fn proc_listallpids(buffer: *mut c_void, size: c_int) -> c_int;
        fn proc_pidpath(pid: c_int, buffer: *mut c_void, size: u32) -> c_int;
        fn proc_pidinfo(
            pid: c_int,
            flavor: c_int,
            arg: u64,
            buffer: *mut c_void,
            size: c_int,
        ) -> c_int;
        fn proc_pidfdinfo(
            pid: c_int,
            fd: c_int,
            flavor: c_int,
            buffer: *mut c_void,
            size: c_int,
        ) -> c_int;
        fn sysctl(
            name: *mut c_int,
            length: c_uint,
            old: *mut c_void,
            old_length: *mut usize,
            new: *mut c_void,
            new_length: usize,
        ) -> c_int;
    }

    /// Of everybody.
    pub fn pids() -> Vec<u32> {
        // SAFETY: without a buffer it only counts.
        let count = unsafe { proc_listallpids(ptr::null_mut(), 0) };
        // Some may be born meanwhile.
        let room = usize::try_from(count).unwrap_or(0) + 64;
        let bytes = filled(room * 4, |buffer, size| {
            // SAFETY: the buffer has that size. It returns a number of pids, not of bytes.
            unsafe { proc_listallpids(buffer, size) }.saturating_mul(4)
        });
        super::super::procinfo::pids(&bytes)
    }

    /// `proc_fdinfo`s.
    pub fn descriptors(pid: u32) -> Vec<u8> {
        let pid = number(pid);
        // SAFETY: without a buffer it only tells the size.
        let size = unsafe { proc_pidinfo(pid, PROC_PIDLISTFDS, 0, ptr::null_mut(), 0) };
        let room = usize::try_from(size).unwrap_or(0) + 256;
        // SAFETY: the buffer has that size.
        filled(room, |buffer, size| unsafe { proc_pidinfo(pid, PROC_PIDLISTFDS, 0, buffer, size) })
    }

    /// A `socket_fdinfo`.
    pub fn socket(pid: u32, fd: i32) -> Vec<u8> {
        // SAFETY: the buffer has that size.
        filled(SOCKET, |buffer, size| unsafe {
            proc_pidfdinfo(number(pid), fd, PROC_PIDFDSOCKETINFO, buffer, size)
        })
    }

    /// A `proc_bsdinfo`.
    pub fn facts(pid: u32) -> Vec<u8> {
        // SAFETY: the buffer has that size.
        filled(FACTS, |buffer, size| unsafe {
            proc_pidinfo(number(pid), PROC_PIDTBSDINFO, 0, buffer, size)
        })
    }

    /// A `proc_vnodepathinfo`.
    pub fn directories(pid: u32) -> Vec<u8> {
        // SAFETY: the buffer has that size.
        filled(DIRECTORIES, |buffer, size| unsafe {
            proc_pidinfo(number(pid), PROC_PIDVNODEPATHINFO, 0, buffer, size)
        })
    }

    /// Of its program.
    pub fn path(pid: u32) -> Vec<u8> {
        filled(MAX_PATH, |buffer, size| {
            // SAFETY: the buffer has that size.
            unsafe { proc_pidpath(number(pid), buffer, size.unsigned_abs()) }
        })
    }

    /// Number of arguments, program, arguments, environment.
    pub fn arguments(pid: u32) -> Vec<u8> {
        let mut name = [CTL_KERN, KERN_PROCARGS2, number(pid)];
        filled(MAX_ARGUMENTS, |buffer, size| {
            let mut length = usize::try_from(size).unwrap_or(0);
            // SAFETY: three numbers, a buffer of that length, and nothing to set.
            let failed = unsafe {
                sysctl(name.as_mut_ptr(), 3, buffer, &raw mut length, ptr::null_mut(), 0)
            };
            if failed == 0 { c_int::try_from(length).unwrap_or(0) } else { 0 }
        })
    }

    /// As many bytes as `fill` says that it wrote; none when it failed.
    fn filled(room: usize, fill: impl FnOnce(*mut c_void, c_int) -> c_int) -> Vec<u8> {
        let mut bytes = vec![0; room];
        let written = fill(bytes.as_mut_ptr().cast(), c_int::try_from(room).unwrap_or(0));
        bytes.truncate(usize::try_from(written).unwrap_or(0));
        bytes
    }

    fn number(pid: u32) -> c_int {
        c_int::try_from(pid).unwrap_or(0)
    }
}

#[cfg(not(target_os = "macos"))]
mod elsewhere {
    pub fn pids() -> Vec<u32> {
        Vec::new()
    }
    pub fn descriptors(_pid: u32) -> Vec<u8> {
        Vec::new()
    }
    pub fn socket(_pid: u32, _fd: i32) -> Vec<u8> {
        Vec::new()
    }
    pub fn facts(_pid: u32) -> Vec<u8> {
        Vec::new()
    }
    pub fn directories(_pid: u32) -> Vec<u8> {
        Vec::new()
    }
    pub fn path(_pid: u32) -> Vec<u8> {
        Vec::new()
    }
    pub fn arguments(_pid: u32) -> Vec<u8> {
        Vec::new()
    }
}

#[cfg(not(target_os = "macos"))]
pub use elsewhere::{arguments, descriptors, directories, facts, path, pids, socket};
