//! The edge's listening socket from launchd, which opened it when it loaded our agent: a client that
//! comes while we are dead waits in its queue and is not refused.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

/// The entry's name in the plist.
pub const NAME: &str = "proxy";

/// `None`: launchd did not start us, or our agent has no socket.
///
/// # Errors
/// When it has one and we can't get it. Works once in the life of a process.
#[cfg(target_os = "macos")]
pub fn socket() -> io::Result<Option<TcpListener>> {
    let (code, descriptors) = system::activate(NAME)?;
    judge(code, descriptors)
}

#[cfg_attr(not(any(target_os = "macos", test)), expect(dead_code, reason = "launchd's"))]
fn judge(code: i32, mut descriptors: Vec<OwnedFd>) -> io::Result<Option<TcpListener>> {
    // Not started by launchd itself; or by an agent that somebody made without a socket.
    if [Errno::SRCH, Errno::NOENT].map(Errno::raw_os_error).contains(&code) {
        return Ok(None);
    }
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code));
    }
    // One address, so one socket. It is shared with launchd: never listen() on it again, a failure
    // of that stops accept() in every process that holds it.
    if descriptors.len() == 1 {
        return Ok(descriptors.pop().map(TcpListener::from));
    }
    Err(io::Error::other(format!(
        "launchd holds {} sockets for us instead of 1: another program had the port when the agent \
         was loaded; end it, then `halton-meter init` loads the agent again",
        descriptors.len()
    )))
}

#[cfg(target_os = "macos")]
mod system {
    #![expect(
        unsafe_code,
        reason = "launchd hands sockets out by a C function, and nobody binds it"
    )]

    use std::ffi::{CString, c_char, c_int, c_void};
    use std::io;
    use std::os::fd::{FromRawFd, OwnedFd};
    use std::ptr;

    use rustix::io::{FdFlags, fcntl_setfd};

    unsafe extern "C" {
        fn launch_activate_socket(
            name: *const c_char,
            fds: *mut *mut c_int,
            count: *mut usize,
        ) -> c_int;
        fn free(memory: *mut c_void);
    }

    /// What it returned, and the descriptors, close-on-exec.
    pub(super) fn activate(name: &str) -> io::Result<(c_int, Vec<OwnedFd>)> {
        let name = CString::new(name)?;
        let (mut fds, mut count) = (ptr::null_mut(), 0);
        // SAFETY: a string with its end, and two places that outlive the call.
        let code = unsafe { launch_activate_socket(name.as_ptr(), &raw mut fds, &raw mut count) };
        if code != 0 || fds.is_null() {
            return Ok((code, Vec::new()));
        }
        // SAFETY: on success it is an array of that many descriptors, each now ours alone.
        let owned: Vec<_> =
            (0..count).map(|i| unsafe { OwnedFd::from_raw_fd(*fds.add(i)) }).collect();
        // SAFETY: the array came from malloc, is ours to free, and is not used again.
        unsafe { free(fds.cast()) };
        for fd in &owned {
            fcntl_setfd(fd, FdFlags::CLOEXEC)?;
        }
        Ok((code, owned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener() -> OwnedFd {
        TcpListener::bind("127.0.0.1:0").unwrap().into()
    }

    #[test]
    fn one_socket_is_taken_and_any_other_number_is_said() {
        let fd = listener();
        let addr = TcpListener::from(fd.try_clone().unwrap()).local_addr().unwrap();
        let taken = judge(0, vec![fd]).unwrap().unwrap();
        assert_eq!(taken.local_addr().unwrap(), addr);
        for wrong in [Vec::new(), vec![listener(), listener()]] {
            let error = judge(0, wrong).unwrap_err().to_string();
            assert!(error.contains("another program had the port"), "{error}");
        }
    }

    #[test]
    fn whoever_launchd_did_not_start_binds_himself() {
        for code in [Errno::SRCH, Errno::NOENT] {
            assert!(judge(code.raw_os_error(), Vec::new()).unwrap().is_none());
        }
        let twice = judge(Errno::ALREADY.raw_os_error(), Vec::new()).unwrap_err();
        assert_eq!(twice.raw_os_error(), Some(Errno::ALREADY.raw_os_error()));
    }
}
