//! Every surface that is known as a stream of one HTTP/2 connection, in any coding, and WebSockets
//! among them: however they are interleaved and cut, the rows are those of each alone.

use proptest::prelude::*;

use super::interleaved::{
    Acts, Style, data, head, ledger_of, merge, refused, reset, socket, tunnel,
};
use super::*;
use crate::meter::coding::tests::ALL;
use crate::meter::exchange::tests::framings::{cursor_run, invoke};
use crate::meter::exchange::tests::shapes::shapes;
use crate::meter::exchange::tests::{Case, streams};
use crate::meter::http2::tests::{client, server};
use crate::meter::websocket::tests::text as message;

/// Documents, lines, arrays, server-sent events, Amazon's messages, Connect's envelopes.
fn cases() -> Vec<Case> {
    let shapes = shapes().into_iter().map(|shape| shape.case);
    shapes.chain(streams()).chain([invoke(), cursor_run()]).collect()
}

fn stream(style: &mut Style, id: u32, case: &Case, coding: usize, size: usize) -> Acts {
    let mut ask = vec![(":method", case.method), (":path", case.target), (":authority", "h")];
    ask.extend(&case.request_headers);
    let mut acts = vec![head(style, Side::Client, id, &ask)];
    acts.extend(data(style, Side::Client, id, &case.request, size));
    let status = case.status.to_string();
    let mut answer = vec![(":status", status.as_str()), ("content-type", case.media)];
    answer.extend(&case.response_headers);
    let (name, encode) = ALL[coding % ALL.len()];
    answer.extend((!name.is_empty()).then_some(("content-encoding", name)));
    acts.push(head(style, Side::Server, id, &answer));
    acts.extend(data(style, Side::Server, id, &encode(&case.body), size));
    acts
}

/// Two turns of Gemini Live.
fn live(style: &mut Style, id: u32, size: usize) -> Acts {
    let path =
        "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent".to_owned();
    let setup = r#"{"setup":{"model":"models/gemini-live-2.5-flash-preview"}}"#;
    let mut said = vec![
        (Side::Client, message(Side::Client, setup)),
        (Side::Server, message(Side::Server, r#"{"setupComplete":{}}"#)),
    ];
    for n in 1..3 {
        let ask = r#"{"client_content":{"turns":[],"turn_complete":true}}"#;
        let spoken = r#"{"serverContent":{"modelTurn":{"parts":[{"text":"x"}]}}}"#;
        let over = format!(
            r#"{{"serverContent":{{"turnComplete":true}},"usageMetadata":{{"promptTokenCount":{id},"responseTokenCount":{n},"totalTokenCount":{}}}}}"#,
            id + n
        );
        said.push((Side::Client, message(Side::Client, ask)));
        let answer = [message(Side::Server, spoken), message(Side::Server, &over)];
        said.push((Side::Server, answer.concat()));
    }
    tunnel(style, id, &path, &said, size)
}

/// Streams that come to their end, and then two that don't.
fn connection(mut style: Style, codings: &[usize], size: usize) -> Vec<Acts> {
    let style = &mut style;
    let mut ids = (0..).map(|n| 2 * n + 1);
    let mut all = Vec::new();
    for (case, coding) in cases().iter().zip(codings.iter().cycle()) {
        all.extend(ids.next().map(|id| stream(style, id, case, *coding, size)));
    }
    for make in [socket, socket, live, reset, refused] {
        all.extend(ids.next().map(|id| make(style, id, size)));
    }
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
            let stream = stream(&mut Style(0), 1, &case, coding, 100);
            let rows = alone(case.host, &[stream]);
            assert_eq!(rows.len(), 1, "{}", case.target);
            assert!(rows[0].contains("Reported"), "{} {}", case.target, rows[0]);
        }
    }
    let host = "generativelanguage.googleapis.com";
    let rows = alone(host, &[live(&mut Style(0), 1, 100)]);
    let turns = rows.iter().filter(|r| r.contains("gemini.live") && r.contains("Reported"));
    assert_eq!((rows.len(), turns.count()), (3, 2), "{rows:#?}");
    for make in [reset, refused] {
        let rows = alone(host, &[make(&mut Style(1), 3, 100)]);
        assert!(rows.len() == 1 && rows[0].contains("Interrupted"), "{rows:#?}");
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
        style in any::<u64>(),
        size in 1_usize..400,
        piece in 16_usize..2000,
    ) {
        let hosts: Vec<&str> = cases().iter().map(|case| case.host).collect();
        let host = host.get(&hosts);
        // The plainest frames alone, any frames together.
        let expected = alone(host, &connection(Style(0), &codings, size));
        let streams = connection(Style(style), &codings, size);
        prop_assert_eq!(ledger_of(host, &merge(streams, &choices), piece), expected);
    }
}
