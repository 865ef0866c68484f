//! Gives back memory that a process does not use while it has little to do.
//!
//! A mapped page of the program counts as memory in use and stays until there is pressure, and the
//! allocator keeps what it has had: whatever starting, a burst or a thousand connections needed would
//! be charged to a process that runs all day. What is needed again is mapped again at its first use,
//! from the page cache.

use std::fs;
use std::time::Duration;

use rustix::mm::{Advice, madvise};

const PERIOD: Duration = Duration::from_secs(10);

/// Now, and whenever there is something to give back and nothing else to do.
pub async fn release_when_quiet() {
    let mut quiet = Quiet::default();
    release();
    loop {
        tokio::time::sleep(PERIOD).await;
        if Usage::of_this_process().is_some_and(|now| quiet.step(now)) {
            release();
        }
    }
}

/// What the kernel has counted since the process began.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    /// Page faults that found the page in memory: new memory, or code not used so far.
    faults: u64,
    /// CPU time in hundredths of a second.
    cpu: u64,
}

impl Usage {
    fn of_this_process() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// Reads `/proc/PID/stat`, see proc(5).
    fn parse(stat: &str) -> Option<Self> {
        // The second field is a name and may hold anything.
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split_ascii_whitespace().skip(7);
        let faults = fields.next()?.parse().ok()?;
        let mut ticks = fields.skip(3);
        let mut next = || ticks.next()?.parse::<u64>().ok();
        Some(Self { faults, cpu: next()? + next()? })
    }
}

/// When it is time.
#[derive(Debug, Default)]
struct Quiet {
    /// CPU time at the last look and at the last release.
    cpu: u64,
    cpu_then: u64,
    /// Faults up to the first look after the last release: what is always in use is back by then.
    settled: Option<u64>,
    released: bool,
}

impl Quiet {
    /// More than this in a period is work; after so much in all there is something to free.
    const CPU: u64 = 5;
    /// A fault maps up to sixteen pages: fewer are not worth it.
    const FAULTS: u64 = 64;

    /// A look once in each [`PERIOD`]: is it time?
    fn step(&mut self, now: Usage) -> bool {
        let busy = now.cpu.saturating_sub(self.cpu) > Self::CPU;
        self.cpu = now.cpu;
        if self.released {
            self.settled = Some(now.faults);
        }
        let mapped = now.faults.saturating_sub(self.settled.unwrap_or(0)) >= Self::FAULTS;
        let worked = now.cpu.saturating_sub(self.cpu_then) >= Self::CPU;
        self.released = !busy && (mapped || worked);
        if self.released {
            self.cpu_then = now.cpu;
        }
        self.released
    }
}

fn release() {
    trim();
    let maps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    for (start, length) in clean(&maps) {
        discard(start, length);
    }
}

/// Where pages lie that are a file's as it is, by the text of `/proc/self/smaps`: code and constants of
/// the program and its libraries. Where anything was relocated (`Anonymous`), the file has other bytes.
fn clean(smaps: &str) -> impl Iterator<Item = (usize, usize)> {
    let mut at = None;
    smaps.lines().filter_map(move |line| match line.strip_prefix("Anonymous:") {
        Some(rest) => at.take().filter(|_| rest.trim() == "0 kB"),
        None => {
            if let Some(found) = mapping(line) {
                at = found;
            }
            None
        }
    })
}

/// A line that begins a mapping: where it lies, if it is a file's and can't be written.
fn mapping(line: &str) -> Option<Option<(usize, usize)>> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (address(start)?, address(end)?);
    let fixed = matches!(fields.next()?, "r-xp" | "r--p");
    let of_file = fields.nth(3).is_some_and(|file| file.starts_with('/'));
    Some((fixed && of_file).then_some((start, end.checked_sub(start)?)))
}

#[expect(unsafe_code, reason = "memory is given back by its address")]
fn discard(start: usize, length: usize) {
    let start = std::ptr::with_exposed_provenance_mut(start);
    // SAFETY: the range is a private mapping of a file that can't be written, and none of its pages
    // differs from the file's (`Anonymous` is 0, and only a writer could change that), so the next
    // access finds the same bytes. If another thread unmapped it meanwhile (none does), the call fails.
    let _ = unsafe { madvise(start, length, Advice::LinuxDontNeed) };
}

/// What the allocator keeps of what was freed. Others than glibc's return it themselves.
#[cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "a function of the C library"))]
fn trim() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: malloc_trim(3): takes the allocator's locks itself, may be called at any time.
        let _ = unsafe { malloc_trim(0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4242 (a) b) S 1 4242 4242 0 -1 4194560 1500 0 3 0 12 30 0 0 20 0 5 0 100 1000 200 18446744073709551615";

    #[test]
    fn faults_and_time_are_found_behind_any_name() {
        let usage = Usage::parse(STAT).expect("is well-formed");
        assert_eq!((usage.faults, usage.cpu), (1500, 42));
        assert!(Usage::parse("1 (x) S 1").is_none());
        assert!(Usage::of_this_process().is_some_and(|usage| usage.faults > 0));
    }

    #[test]
    fn memory_is_given_back_once_when_work_is_over() {
        let mut quiet = Quiet::default();
        let mut step = |faults, cpu| quiet.step(Usage { faults, cpu });
        assert!(!step(900, 60), "started, and at work");
        assert!(step(905, 61), "quiet");
        assert!(!step(1100, 62), "what is always in use has come back");
        assert!(!step(1110, 63));
        assert!(!step(3000, 400), "at work");
        assert!(step(3001, 402), "quiet again");
        assert!(!step(3200, 403));
        assert!(!step(3263, 404), "too little");
        assert!(step(3264, 405));
        assert!(!step(3300, 406));
        assert!(!step(3301, 409));
        assert!(step(3301, 410), "what was freed makes no faults");
    }

    #[test]
    fn only_what_equals_its_file_is_discarded() {
        let smaps = "\
55d8c8a5b000-55d8c8a5f000 r-xp 00002000 fe:00 131 /usr/bin/x
Size:                 16 kB
Anonymous:             0 kB
55d8c8a5f000-55d8c8a60000 r--p 00006000 fe:00 131 /usr/bin/x
Anonymous:             4 kB
55d8c8a60000-55d8c8a61000 r--p 00007000 fe:00 131 /usr/bin/with space
Anonymous:             0 kB
55d8c8a61000-55d8c8a62000 rw-p 00007000 fe:00 131 /usr/bin/x
Anonymous:             0 kB
55d8c8a62000-55d8c8a63000 r--s 00007000 fe:00 131 /usr/share/x
Anonymous:             0 kB
7ffd1c5f2000-7ffd1c5f4000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
7f0000000000-7f0000001000 r--p 00000000 00:00 0
Anonymous:             0 kB
VmFlags: rd mr mw me sd
";
        let found: Vec<_> = clean(smaps).collect();
        assert_eq!(found, [(0x55d8_c8a5_b000, 0x4000), (0x55d8_c8a6_0000, 0x1000)]);
        assert_eq!(clean("").count(), 0);
    }

    #[test]
    fn the_program_goes_on() {
        let words = || std::hint::black_box("one two three").split(' ').count();
        assert_eq!(words(), 3);
        release();
        assert_eq!(words(), 3);
    }
}
