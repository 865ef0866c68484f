//! Gives back the memory of code that only starting needed.
//!
//! A mapped page of the program counts as memory in use, and stays until there is pressure: parsing
//! arguments and settings, and whatever happens to lie beside it, would be charged to a process that
//! runs all day. What is needed again is mapped again at its first use, from the page cache.

use std::fs;
use std::time::Duration;

use rustix::mm::{Advice, madvise};

/// By then everything that is done over and over has been done for the first time.
const SETTLED: Duration = Duration::from_secs(20);

/// Now, and once more when all has settled.
pub async fn release_startup_code() {
    release_code();
    tokio::time::sleep(SETTLED).await;
    release_code();
}

/// The executable mappings of files: of this program and its libraries.
fn release_code() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (start, length) in maps.lines().filter_map(code) {
        release(start, length);
    }
}

/// Where code lies, by a line of `/proc/self/maps`.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, permissions, file) = (fields.next()?, fields.next()?, fields.nth(3)?);
    let (start, end) = range.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (address(start)?, address(end)?);
    (permissions == "r-xp" && file.starts_with('/')).then_some((start, end.checked_sub(start)?))
}

#[expect(unsafe_code, reason = "memory is given back by its address")]
fn release(start: usize, length: usize) {
    let start = std::ptr::with_exposed_provenance_mut(start);
    // SAFETY: the range is a private mapping of a file that can't be written (`r-xp`), so every page
    // of it is the file's, and the next access finds the same bytes. If another thread unmapped it
    // meanwhile (none does), the call fails.
    let _ = unsafe { madvise(start, length, Advice::LinuxDontNeed) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_counts() {
        let text = "55d8c8a5b000-55d8c8a5f000 r-xp 00002000 fe:00 131 /usr/bin/x";
        assert_eq!(code(text), Some((0x55d8_c8a5_b000, 0x4000)));
        for other in [
            "55d8c8a5b000-55d8c8a5f000 r--p 00002000 fe:00 131 /usr/bin/x",
            "55d8c8a5b000-55d8c8a5f000 rwxp 00002000 fe:00 131 /usr/bin/x",
            "7ffd1c5f2000-7ffd1c5f4000 r-xp 00000000 00:00 0 [vdso]",
            "7f0000000000-7f0000001000 r-xp 00000000 00:00 0",
            "",
        ] {
            assert_eq!(code(other), None, "{other}");
        }
    }

    #[test]
    fn the_program_goes_on() {
        let words = || std::hint::black_box("one two three").split(' ').count();
        assert_eq!(words(), 3);
        release_code();
        assert_eq!(words(), 3);
    }
}
