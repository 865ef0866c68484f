//! Every surface that is known as a stream of one HTTP/2 connection, in any coding, and WebSockets
//! among them: however they are interleaved and cut, the rows are those of each alone.

use proptest::prelude::*;

use super::interleaved::{Acts, data, head, ledger_of, merge, socket};
use super::*;
use crate::meter::coding::tests::ALL;
use crate::meter::exchange::tests::framings::{cursor_run, invoke};
use crate::meter::exchange::tests::shapes::shapes;
use crate::meter::exchange::tests::{Case, streams};
use crate::meter::http2::tests::{client, server};

/// Documents, lines, arrays, server-sent events, Amazon's messages, Connect's envelopes.
fn cases() -> Vec<Case> {
    let shapes = shapes().into_iter().map(|shape| shape.case);
    shapes.chain(streams()).chain([invoke(), cursor_run()]).collect()
}

fn stream(id: u32, case: &Case, coding: usize, size: usize) -> Acts {
    let mut ask = vec![(":method", case.method), (":path", case.target), (":authority", "h")];
    ask.extend(&case.request_headers);
    let mut acts = vec![head(Side::Client, id, &ask)];
    acts.extend(data(Side::Client, id, &case.request, size));
    let status = case.status.to_string();
    let mut answer = vec![(":status", status.as_str()), ("content-type", case.media)];
    answer.extend(&case.response_headers);
    let (name, encode) = ALL[coding % ALL.len()];
    answer.extend((!name.is_empty()).then_some(("content-encoding", name)));
    acts.push(head(Side::Server, id, &answer));
    acts.extend(data(Side::Server, id, &encode(&case.body), size));
    acts
}

fn connection(codings: &[usize], size: usize) -> Vec<Acts> {
    let cases = cases();
    let ids = (0..).map(|n| 2 * n + 1);
    let mut all: Vec<Acts> = cases
        .iter()
        .zip(codings.iter().cycle())
        .zip(ids.clone())
        .map(|((case, coding), id)| stream(id, case, *coding, size))
        .collect();
    let behind = ids.skip(all.len()).take(2);
    all.extend(behind.map(|id| socket(id, size)));
    all
}

/// The rows of each stream on a connection of its own.
fn alone(host: &str, streams: &[Acts]) -> Vec<String> {
    let mut rows: Vec<String> = streams
        .iter()
        .flat_map(|acts| {
            let acts = [&[client(&[]), server(&[])], acts.as_slice()].concat();
            ledger_of(host, &acts, usize::MAX)
        })
        .collect();
    rows.sort();
    rows
}

#[test]
fn each_is_understood_on_its_own_host() {
    for case in cases() {
        for coding in 0..ALL.len() {
            let rows = alone(case.host, &[stream(1, &case, coding, 100)]);
            assert_eq!(rows.len(), 1, "{}", case.target);
            assert!(rows[0].contains("Reported"), "{} {}", case.target, rows[0]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whoever the host is: it decides which of them are understood as what.
    #[test]
    fn any_interleaving_of_all_surfaces(
        host in any::<prop::sample::Index>(),
        codings in prop::collection::vec(0_usize..7, 1..40),
        choices in prop::collection::vec(0_usize..64, 1..200),
        size in 1_usize..400,
        piece in 16_usize..2000,
    ) {
        let hosts: Vec<&str> = cases().iter().map(|case| case.host).collect();
        let host = host.get(&hosts);
        let streams = connection(&codings, size);
        let expected = alone(host, &streams);
        prop_assert_eq!(ledger_of(host, &merge(streams, &choices), piece), expected);
    }
}
