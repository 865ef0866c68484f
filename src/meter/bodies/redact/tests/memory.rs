//! What it takes to look through a large body.

use super::redact;
use crate::descriptors::testing::alone;

/// Of the process, so far, in bytes; where the system tells.
fn peak() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<usize>().ok()? << 10)
}

#[test]
fn a_large_body_takes_three_times_its_size_and_no_more() {
    const NAME: &str =
        "meter::bodies::redact::tests::memory::a_large_body_takes_three_times_its_size_and_no_more";
    if !alone(NAME) {
        return;
    }
    let event = |text: &str| {
        format!("data: {{\"type\":\"d\",\"index\":0,\"delta\":{{\"text\":\"{text}\"}}}}\n\n")
    };
    let prose = event("brown \\\"foxes\\\"\\n jump over a lazy dog, and write to a@b.com");
    let body = prose.repeat((4 << 20) / prose.len());
    // The patterns' own memory is there before: it does not grow with the text.
    let small = redact(&body[..64 << 10], usize::MAX);
    assert!(small.found["email"] > 100);
    let Some(before) = peak() else { return };
    let redacted = redact(&body, body.len());
    assert!(redacted.found["email"] > 10_000);
    let more = peak().unwrap() - before;
    assert!(more <= body.len() * 3, "{more} bytes for {}", body.len());
}
