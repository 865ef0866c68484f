//! The one facade over what differs between platforms. Whatever changes the user's machine is a plan
//! of [steps](Step) here: it is shown first, and done elsewhere ([`crate::setup`]).

mod forebear;
mod network;
mod service;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::home::own_program;
use crate::setup::{Step, StepError};
use crate::trust_store::TrustStore;

pub use forebear::{Origin, program_age};
pub use network::{NetworkService, PAC, ProxySetting, SOCKS};
pub use service::{Installation, Service, ServiceManager, ServiceState, SessionEnvironment, User};

#[cfg(target_os = "linux")]
pub use crate::linux::{owner, splice};
#[cfg(not(target_os = "linux"))]
pub use crate::macos::{owner, splice};

/// What the loader runs before `main`.
#[used]
#[cfg_attr(target_os = "linux", unsafe(link_section = ".init_array"))]
#[cfg_attr(not(target_os = "linux"), unsafe(link_section = "__DATA,__mod_init_func"))]
#[expect(unsafe_code, reason = "a section of the program by its name")]
static BEFORE_MAIN: extern "C" fn() = crate::inherit::note_ignored;

/// A listener may have the port that a connection with `SO_REUSEADDR` holds, or has held until a moment ago.
pub const REUSES_PORTS: bool = cfg!(target_os = "linux");

/// As [`TcpStream::connect_timeout`], with `SO_REUSEADDR` where that is of use ([`REUSES_PORTS`]).
///
/// # Errors
/// As the system's.
pub fn connect_timeout(addr: &SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    #[cfg(target_os = "linux")]
    return crate::linux::connect::connect_timeout(addr, patience);
    #[cfg(not(target_os = "linux"))]
    return TcpStream::connect_timeout(addr, patience);
}

/// Names the boot, and where there are several spaces of pids the one, in which ours counts. `None`: it can't
/// be told. Asked for once: it stays while we live, and macOS has a program for it.
#[must_use]
pub fn place_of_pids() -> Option<&'static str> {
    static PLACE: OnceLock<Option<String>> = OnceLock::new();
    PLACE
        .get_or_init(|| {
            #[cfg(target_os = "linux")]
            return crate::linux::place_of_pids();
            #[cfg(not(target_os = "linux"))]
            return crate::macos::place_of_pids();
        })
        .as_deref()
}

/// The program, and its arguments, that shows this on the desktop. No shell reads it.
#[must_use]
pub fn notification(title: &str, text: &str) -> Vec<String> {
    #[cfg(target_os = "linux")]
    return crate::linux::notification(title, text);
    #[cfg(not(target_os = "linux"))]
    return crate::macos::notification(title, text);
}

/// The program that opens an address in the user's browser; `None`: there is no screen for one.
#[must_use]
pub fn browser_opener() -> Option<&'static str> {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if is_macos() {
        return (!set("SSH_CONNECTION")).then_some("open");
    }
    (set("DISPLAY") || set("WAYLAND_DISPLAY")).then_some("xdg-open")
}

/// Runs a tool whose answer does not matter, and ends it when it takes too long.
///
/// # Errors
/// When it can't be started, fails or is ended.
pub fn run_bounded(program: &str, arguments: &[String], patience: Duration) -> io::Result<()> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let end = Instant::now() + patience;
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(io::Error::other(status.to_string())),
            None if Instant::now() >= end => {
                child.kill()?;
                child.wait()?;
                return Err(io::Error::new(io::ErrorKind::TimedOut, "took too long"));
            }
            None => std::thread::sleep(LOOK),
        }
    }
}

/// Between two looks at a tool that runs.
const LOOK: Duration = Duration::from_millis(20);

/// Where the system has this tool of its own: for who does not find it by the search path.
#[must_use]
pub fn place_of_tool(program: &str) -> Option<&'static str> {
    crate::macos::place_of_tool(program)
}

/// Tests name a file here; each call that takes it off then adds a line to it, and nothing else
/// happens.
pub const RECORD_VAR: &str = "HALTON_METER_RECORD_SYSTEM_PROXY";

/// Brings word of changes of the network, where there is a system proxy to see to.
pub use crate::macos::route::News as NetworkNews;

/// The system-wide proxy setting.
pub trait SystemProxy: Send + Sync {
    /// Takes it off on every network service and names them. `None`: this platform has no
    /// such setting. Never turns anything on.
    fn off(&self) -> Result<Option<Vec<String>>, SystemProxyError>;

    /// `host:port` of the HTTP and HTTPS proxies that are on; none where that can't be told.
    fn leads_to(&self) -> Vec<String> {
        Vec::new()
    }

    /// What is in force instead of them, or before them, in words.
    fn other_way(&self) -> Option<&'static str> {
        None
    }

    /// What is reached without them, where that is one list for all.
    fn exceptions(&self) -> Vec<String> {
        Vec::new()
    }

    /// Takes it off where it leads to the edge, and names those services; nobody else's is touched.
    /// What can't be asked counts as leading there if `blind`.
    fn off_where_it_leads_to(
        &self,
        _edge: SocketAddr,
        _blind: bool,
    ) -> Result<Vec<String>, SystemProxyError> {
        Ok(Vec::new())
    }

    /// Each network service, the disabled ones with them. `None`: this platform has no such setting.
    fn read(&self) -> Result<Option<Vec<NetworkService>>, SystemProxyError> {
        Ok(None)
    }

    /// The same, and the names of active ones that can't be read.
    fn read_in_part(&self) -> Result<(Vec<NetworkService>, Vec<String>), SystemProxyError> {
        Ok((self.read()?.unwrap_or_default(), Vec::new()))
    }

    /// The active ones that are wanted, by place and name: each takes several calls of a tool.
    fn read_those(
        &self,
        _wanted: &dyn Fn(&str, &str) -> bool,
    ) -> Result<Option<Vec<NetworkService>>, SystemProxyError> {
        Ok(None)
    }

    /// Every active service of `found` that does not point at the edge does then, but for those that have a way
    /// of their own ([`NetworkService::own_way`]), which do so no more; `was` is what they were before us, and
    /// what `direct` says (rules for `NO_PROXY`) is reached without us. Pure.
    fn set(
        &self,
        _edge: SocketAddr,
        _direct: &[&str],
        _was: &[NetworkService],
        _found: &[NetworkService],
    ) -> Vec<Step> {
        Vec::new()
    }

    /// Services of `found` that point at the edge, or did until somebody switched them off, are as in
    /// `was`, or off if they are not in it. What names another host is somebody else's, and stays. Pure.
    fn restore(
        &self,
        _edge: SocketAddr,
        _was: &[NetworkService],
        _found: &[NetworkService],
    ) -> Vec<Step> {
        Vec::new()
    }
}

/// Why the setting could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum SystemProxyError {
    #[error(transparent)]
    Tool(#[from] StepError),
    #[error("`{call}` says nothing that we understand: {said}")]
    Unclear { call: String, said: String },
    #[error("the recording could not be written: {0}")]
    Recording(#[from] std::io::Error),
}

/// This platform's.
#[must_use]
pub fn service_manager() -> Option<Box<dyn ServiceManager>> {
    if is_macos() { crate::macos::service_manager() } else { crate::linux::service_manager() }
}

/// This platform's.
#[must_use]
pub fn session_environment() -> Option<Box<dyn SessionEnvironment>> {
    if is_macos() {
        crate::macos::session_environment()
    } else {
        crate::linux::session_environment()
    }
}

/// This platform's.
#[must_use]
pub fn system_proxy() -> Box<dyn SystemProxy> {
    if let Some(path) = std::env::var_os(RECORD_VAR) {
        return Box::new(Recording(path.into()));
    }
    // Never the developer's own, from a unit test.
    if cfg!(test) {
        Box::new(Absent)
    } else if is_macos() {
        Box::<crate::macos::system_proxy::NetworkSetup>::default()
    } else {
        Box::new(crate::linux::gnome::Gnome)
    }
}

/// Tests name a directory here; the system's trust store is then looked for below it.
pub const SYSTEM_ROOT_VAR: &str = "HALTON_METER_SYSTEM_ROOT";

/// This platform's trust store.
#[must_use]
pub fn trust_store() -> Box<dyn TrustStore> {
    if is_macos() {
        let home = std::env::var_os("HOME").unwrap_or_default();
        Box::new(crate::macos::trust_store::Keychain::of(Path::new(&home)))
    } else {
        let root = std::env::var_os(SYSTEM_ROOT_VAR).unwrap_or_else(|| "/".into());
        Box::new(crate::linux::trust_store::Anchors::below(root.into()))
    }
}

/// The edge's socket, where the service manager hands it out on a call (launchd).
///
/// # Errors
/// When it should, and does not.
pub fn activated_socket() -> io::Result<Option<TcpListener>> {
    #[cfg(target_os = "macos")]
    return crate::macos::activate::socket();
    #[cfg(not(target_os = "macos"))]
    Ok(None)
}

/// What starts the program that this process runs, also when its file is gone or is another one:
/// the kernel's own link to it, or the copy that [`keep_program`] made.
#[must_use]
pub fn running_program(copy: &Path) -> PathBuf {
    if is_macos() { copy.to_owned() } else { "/proc/self/exe".into() }
}

/// Makes that copy, where there is no other way.
///
/// # Errors
/// When it can't be written.
pub fn keep_program(copy: &Path) -> io::Result<()> {
    if is_macos() { crate::macos::image::keep(&own_program()?, copy) } else { Ok(()) }
}

/// A process and the descriptor by which it holds a socket.
pub type Holder = (u32, i32);

/// Where the next sockets of some processes are looked for, most recent holders first, before all of
/// their descriptors are: a new one is the lowest that is free.
pub fn neighbours(recent: &[Holder]) -> impl Iterator<Item = Holder> {
    const AFTER: i32 = 16;
    const BEFORE: i32 = 8;
    const PROCESSES: usize = 4;
    recent.iter().take(PROCESSES).flat_map(|&(pid, last)| {
        let around = (1..=AFTER).chain((1..=BEFORE).map(|n| -n));
        around
            .map(move |n| (pid, last.saturating_add(n)))
            .filter(|(_, descriptor)| *descriptor >= 0)
    })
}

/// What reads as ready as soon as this process dies, before its sockets do. `None`: not on this system.
#[must_use]
pub fn canary() -> Option<OwnedFd> {
    #[cfg(target_os = "linux")]
    return crate::linux::canary::start();
    #[cfg(not(target_os = "linux"))]
    return None;
}

/// Starting is over: from now on gives back what memory is not in use, where that can be done, by a
/// task of the runtime it is called in.
pub fn release_when_quiet() {
    #[cfg(target_os = "linux")]
    tokio::spawn(crate::linux::resident::release_when_quiet());
}

/// Where what holds this directory is mounted, if the system tells it without asking the disk.
#[must_use]
pub fn mounted_on(dir: &Path) -> Option<PathBuf> {
    #[cfg(target_os = "linux")]
    return crate::linux::mounts::mounted_on(dir);
    #[cfg(not(target_os = "linux"))]
    return crate::macos::mounted_on(dir);
}

/// Reads bytes as what Linux says of sockets' owners, for the fuzzer; elsewhere nothing does.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_owners(data: &[u8], text: &str) {
    #[cfg(target_os = "linux")]
    crate::linux::owner::read_foreign(data, text);
    #[cfg(not(target_os = "linux"))]
    let _ = (data, text);
}

/// The program that listens on a local port, as `name, pid N`, if that can be told.
#[must_use]
pub fn listener_on(addr: SocketAddr) -> Option<String> {
    #[cfg(target_os = "linux")]
    return crate::linux::listener::on(addr);
    #[cfg(not(target_os = "linux"))]
    return crate::macos::listener::on(addr);
}

/// Binds a port that nobody has.
///
/// # Errors
/// When somebody has it, on macOS also by a socket on all addresses.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    if cfg!(target_os = "macos") {
        crate::macos::listener::nobody_on(addr, listener_on)?;
    }
    TcpListener::bind(addr)
}

/// A running program of this user's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Running {
    pub pid: u32,
    pub name: String,
    /// For how long it has been running, if that can be told.
    pub age: Option<Duration>,
}

impl std::fmt::Display for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, pid {}", self.name, self.pid)
    }
}

/// For how long a process has been running, if that can be told.
#[must_use]
pub fn age(pid: u32) -> Option<Duration> {
    #[cfg(target_os = "linux")]
    return crate::linux::environ::age(pid);
    #[cfg(not(target_os = "linux"))]
    return crate::macos::environ::age(pid);
}

/// Programs that were started with a proxy variable that leads there.
#[must_use]
pub fn programs_pointing_at(addr: SocketAddr) -> Vec<Running> {
    #[cfg(target_os = "linux")]
    return crate::linux::environ::pointing_at(addr);
    #[cfg(not(target_os = "linux"))]
    return crate::macos::environ::pointing_at(addr);
}

/// Whether `NAME=value` is a proxy variable that leads to `addr`.
#[must_use]
pub fn is_proxy_to(variable: &str, addr: SocketAddr) -> bool {
    let Some((name, value)) = variable.split_once('=') else { return false };
    let name = name.to_ascii_lowercase();
    let is_proxy = ["https_proxy", "http_proxy", "all_proxy"].contains(&name.as_str());
    let (_, authority) = value.split_once("://").unwrap_or(("", value));
    let authority = authority.trim_end_matches('/');
    let local = || format!("localhost:{}", addr.port());
    is_proxy && (authority == addr.to_string() || authority == local())
}

/// Set to `macos`, debug builds use macOS's tools anywhere: tests put stand-ins for them on the
/// search path.
#[cfg(debug_assertions)]
pub const PLATFORM_VAR: &str = "HALTON_METER_PLATFORM";

/// Whether services, session environment, system proxy and trust store are macOS's.
#[must_use]
pub fn is_macos() -> bool {
    #[cfg(debug_assertions)]
    if std::env::var_os(PLATFORM_VAR).is_some_and(|v| v == "macos") {
        return true;
    }
    cfg!(target_os = "macos")
}

pub use crate::macos::local_network::is_local;

/// What programs are to reach without us, as rules of `NO_PROXY`: we may be kept from where they are not.
#[must_use]
pub fn reached_without_us() -> &'static [&'static str] {
    if is_macos() { &crate::macos::local_network::NO_PROXY } else { &[] }
}

/// Where the system may keep us from the local network: what is to be known when there was no way.
#[must_use]
pub fn why_no_way_nearby() -> Option<&'static str> {
    is_macos().then_some(crate::macos::local_network::REFUSED)
}

/// Whether there is a system proxy setting that programs follow.
#[must_use]
pub fn has_system_proxy() -> bool {
    is_macos()
}

/// Where there is no system proxy.
struct Absent;

impl SystemProxy for Absent {
    fn off(&self) -> Result<Option<Vec<String>>, SystemProxyError> {
        Ok(None)
    }
}

struct Recording(PathBuf);

impl SystemProxy for Recording {
    fn off(&self) -> Result<Option<Vec<String>>, SystemProxyError> {
        use std::io::Write;
        crate::home::open_append(&self.0)?.write_all(b"off\n")?;
        Ok(Some(vec!["recorded".to_owned()]))
    }

    fn off_where_it_leads_to(
        &self,
        _edge: SocketAddr,
        _blind: bool,
    ) -> Result<Vec<String>, SystemProxyError> {
        Ok(self.off()?.unwrap_or_default())
    }
}
