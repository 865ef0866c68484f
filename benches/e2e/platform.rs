//! What differs between Linux and macOS.

use std::io;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tokio::net::TcpStream;

/// Nanoseconds of a clock that all processes share and nobody sets.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// CPU time of a process, all its threads, ended ones too, to the nanosecond: `/proc/PID/stat`
/// counts in ticks of 10 ms, `/proc/PID/schedstat` one thread only.
#[cfg(target_os = "linux")]
pub fn cpu(pid: u32) -> Option<Duration> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).ok()?);
    clock_gettime(ClockId::pid_cpu_clock_id(pid).ok()?).ok().map(Duration::from)
}

/// To the millisecond.
#[cfg(not(target_os = "linux"))]
pub fn cpu(pid: u32) -> Option<Duration> {
    let pid = sysinfo::Pid::from_u32(pid);
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_processes_specifics(
        sysinfo::ProcessesToUpdate::Some(&[pid]),
        true,
        sysinfo::ProcessRefreshKind::nothing().with_cpu(),
    );
    system.process(pid).map(|p| Duration::from_millis(p.accumulated_cpu_time()))
}

/// How often the threads of a process stopped to wait for something; none where nobody counts it.
pub fn waits(pid: u32) -> Option<u64> {
    let mut sum = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        // It may have ended.
        let Ok(status) = std::fs::read_to_string(thread.path().join("status")) else { continue };
        let count = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"))?;
        sum += count.trim().parse::<u64>().ok()?;
    }
    Some(sum)
}

/// Resident memory of a process.
pub fn resident(pid: u32) -> Option<u64> {
    let pid = sysinfo::Pid::from_u32(pid);
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_processes_specifics(
        sysinfo::ProcessesToUpdate::Some(&[pid]),
        true,
        sysinfo::ProcessRefreshKind::nothing().with_memory(),
    );
    system.process(pid).map(sysinfo::Process::memory)
}

/// CPU time that the whole machine has used since it started; none where nobody counts it.
pub fn machine_busy() -> Option<Duration> {
    const TICK: Duration = Duration::from_millis(10);
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<u32> =
        text.lines().next()?.split_whitespace().skip(1).map_while(|f| f.parse().ok()).collect();
    // user nice system idle iowait irq softirq; what guests use is in user already.
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|at| fields.get(*at)).sum::<u32>();
    Some(TICK * busy)
}

/// One direction of a tunnel by splice(2). A pipe is held only while bytes are in it.
#[cfg(target_os = "linux")]
pub async fn one_way(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
    use std::cell::RefCell;
    use std::os::fd::OwnedFd;
    use tokio::io::Interest;

    const SIZE: usize = 256 * 1024;
    thread_local!(static IDLE: RefCell<Vec<(OwnedFd, OwnedFd)>> = const { RefCell::new(Vec::new()) });
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    loop {
        from.readable().await?;
        let (out, into) = match IDLE.with_borrow_mut(Vec::pop) {
            Some(pipe) => pipe,
            None => {
                let pipe = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
                fcntl_setpipe_size(&pipe.1, SIZE)?;
                pipe
            }
        };
        loop {
            let fill = || Ok(splice(from, None, &into, None, SIZE, flags)?);
            let mut held = match from.try_io(Interest::READABLE, fill) {
                Ok(0) => return Ok(rustix::net::shutdown(to, rustix::net::Shutdown::Write)?),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            };
            while held > 0 {
                let drain = || Ok(splice(&out, None, to, None, held, flags)?);
                match to.try_io(Interest::WRITABLE, drain) {
                    Ok(n) => held -= n,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
                    Err(e) => return Err(e),
                }
            }
        }
        IDLE.with_borrow_mut(|idle| idle.push((out, into)));
    }
}

/// There is no splice: large buffers come nearest.
#[cfg(not(target_os = "linux"))]
pub async fn one_way(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        from.readable().await?;
        let n = match from.try_read(&mut buffer) {
            Ok(0) => return Ok(rustix::net::shutdown(to, rustix::net::Shutdown::Write)?),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            Err(e) => return Err(e),
        };
        let mut sent = 0;
        while sent < n {
            to.writable().await?;
            match to.try_write(&buffer[sent..n]) {
                Ok(more) => sent += more,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }
}
