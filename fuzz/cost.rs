//! What an input costs: bytes of the heap at its peak, and time of this thread alone (others may
//! have the processor meanwhile).

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use halton_meter::fuzzing::Target;

/// An input is repeated to this length before it is run: what grows with the square of its length
/// is seen then.
const REPEAT: &str = "HALTON_FUZZ_REPEAT";
/// Of which a megabyte of input takes no more, in the slowest of builds.
const FOR_EACH_MIB: Duration = Duration::from_secs(16);
const AT_LEAST: Duration = Duration::from_secs(1);

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counted.
pub struct Heap;

// SAFETY: each call is the system allocator's own.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs it, and panics if it took too much.
pub fn bounded(target: &Target, data: &[u8]) {
    let repeated = repeated(data);
    let data = repeated.as_deref().unwrap_or(data);
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let begun = time();
    (target.run)(data);
    let took = time().saturating_sub(begun);
    let peak = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let most = AT_LEAST.max(FOR_EACH_MIB * length / (1 << 20));
    assert!(peak <= target.memory_for(data.len()), "{length} bytes took {peak} bytes of memory");
    assert!(took <= most, "{length} bytes took {took:?}");
}

fn repeated(data: &[u8]) -> Option<Vec<u8>> {
    static LENGTH: OnceLock<usize> = OnceLock::new();
    let wanted = *LENGTH.get_or_init(|| {
        let text = std::env::var(REPEAT).unwrap_or_default();
        text.parse().unwrap_or_default()
    });
    (wanted > data.len() && !data.is_empty()).then(|| data.repeat(wanted / data.len()))
}

fn time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let nanos = u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap_or_default();
    Duration::from_nanos(nanos)
}
