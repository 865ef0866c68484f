//! What a ClientHello's extensions say that rustls does not pass on.

const EARLY_DATA: u16 = 42;
const SUPPORTED_VERSIONS: u16 = 43;
const TLS12: [u8; 2] = [3, 3];
const TLS13: [u8; 2] = [3, 4];
const RANDOM: usize = 32;

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Extensions {
    /// It speaks TLS 1.3, among others maybe.
    pub(super) tls13: bool,
    /// … of which one is older.
    pub(super) older: bool,
    /// A request comes right behind it, in a key of an earlier session.
    pub(super) early_data: bool,
}

/// `records`: begins with those of a whole ClientHello (RFC 8446, 4.1.2).
pub(super) fn extensions(records: &[u8]) -> Option<Extensions> {
    let message = message(records)?;
    let mut rest = message.get(4..)?;
    take(&mut rest, 2 + RANDOM)?;
    let session_id = usize::from(*take(&mut rest, 1)?.first()?);
    take(&mut rest, session_id)?;
    let suites = length(&mut rest)?;
    take(&mut rest, suites)?;
    let compressions = usize::from(*take(&mut rest, 1)?.first()?);
    take(&mut rest, compressions)?;
    let all = length(&mut rest)?;
    let mut rest = take(&mut rest, all)?;
    let mut found = Extensions::default();
    while !rest.is_empty() {
        let kind = u16::from_be_bytes(*take(&mut rest, 2)?.first_chunk()?);
        let size = length(&mut rest)?;
        let body = take(&mut rest, size)?;
        found.early_data |= kind == EARLY_DATA;
        let versions = if kind == SUPPORTED_VERSIONS { body.get(1..)? } else { &[] };
        for version in versions.chunks(TLS13.len()) {
            found.tls13 |= version == TLS13;
            found.older |= version.first() == TLS12.first() && *version <= TLS12[..];
        }
    }
    Some(found)
}

/// The handshake message, which may be in several records.
fn message(records: &[u8]) -> Option<Vec<u8>> {
    let (mut message, mut rest) = (Vec::new(), records);
    loop {
        if let Some([_, a, b, c]) = message.first_chunk() {
            let whole = 4 + u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if message.len() >= whole {
                message.truncate(whole);
                return Some(message);
            }
        }
        take(&mut rest, 3)?;
        let size = length(&mut rest)?;
        message.extend_from_slice(take(&mut rest, size)?);
    }
}

fn length(rest: &mut &[u8]) -> Option<usize> {
    take(rest, 2)?.first_chunk().map(|bytes| usize::from(u16::from_be_bytes(*bytes)))
}

fn take<'b>(rest: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (now, later) = rest.split_at_checked(count)?;
    *rest = later;
    Some(now)
}
