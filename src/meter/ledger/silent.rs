//! Which requests were answered without the usage being told, and what would have it told.

use std::collections::BTreeMap;

use rusqlite::params_from_iter;
use serde::Serialize;

use super::LedgerError;
use super::clause::{Clause, Named};
use super::query::Ledger;
use super::record::{Columns, Name};
use super::report::ReportQuery;
use crate::meter::row::Completeness;
use crate::meter::surface::Kind;

/// Requests of one kind whose usage is absent. Nothing of them is in any sum of tokens or money.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Silent {
    pub provider: String,
    pub surface: Option<String>,
    pub model: Option<String>,
    pub stream: bool,
    pub requests: u64,
    /// What to change, or why nothing can be.
    pub remedy: &'static str,
}

impl Ledger {
    /// All in the range, by how many there are. `requests_silent` (008_cut_short.sql) has these and no
    /// others, so that a report of millions stays quick.
    pub(super) fn silent(&self, query: &ReportQuery) -> Result<Vec<Silent>, LedgerError> {
        let projects = query.project.as_deref().map(|name| self.names.recorded(name));
        let mut clause = Clause::within(query.window).named(projects.map(Named::projects));
        // As `Sums::add` counts them. Counted here: SQLite would sort them all first.
        clause.add(
            "billable AND usage = 'absent' AND cost_nanousd IS NULL AND completeness <> 'open' \
             AND coalesce(status, 0) < 400 AND coalesce(status, 0) NOT BETWEEN 300 AND 399 \
             AND (error_class IS NULL OR (completeness = 'interrupted' AND status < 300 \
             AND error_class IN ('client_abort', 'upstream_cut')))",
        );
        let (sql, values) = clause.filter(
            "SELECT provider, surface, coalesce(model, model_requested), coalesce(stream, 0), \
             completeness FROM requests INDEXED BY requests_silent",
        );
        let mut stmt = self.conn.prepare_cached(&sql)?;
        let mut rows = stmt.query(params_from_iter(values))?;
        let mut counts: BTreeMap<SilentKind, u64> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let mut c = Columns::new(row);
            let (provider, surface, model) = (c.next()?, c.next()?, c.next()?);
            let kind = (provider, surface, model, c.next()?, c.next::<Name<Completeness>>()?.0);
            *counts.entry(kind).or_default() += 1;
        }
        let mut found: Vec<Silent> = counts.into_iter().map(silent).collect();
        found.sort_by_key(|silent| std::cmp::Reverse(silent.requests));
        Ok(found)
    }
}

/// Provider, surface, model, whether it streams, completeness.
type SilentKind = (String, Option<String>, Option<String>, bool, Completeness);

fn silent((kind, requests): (SilentKind, u64)) -> Silent {
    let (provider, surface, model, stream, completeness) = kind;
    let named = surface.as_deref().and_then(Kind::named);
    let remedy = remedy(&provider, named, stream, completeness);
    Silent { provider, surface, model, stream, requests, remedy }
}

fn remedy(
    provider: &str,
    kind: Option<Kind>,
    stream: bool,
    completeness: Completeness,
) -> &'static str {
    match completeness {
        Completeness::Interrupted => {
            return "cut before the provider told it; it may bill all the same";
        }
        Completeness::Lossy => return "went through, but could not be followed",
        Completeness::Open | Completeness::Complete => {}
    }
    match kind {
        Some(Kind::Chat | Kind::Completions) if stream => {
            "ask for it: \"stream_options\": {\"include_usage\": true}"
        }
        Some(Kind::Audio) if matches!(provider, "groq" | "azure") => {
            "Whisper tells it in its long form only (\"response_format\": \"verbose_json\"), other \
             transcriptions in JSON (\"json\"), speech in its event stream, if at all"
        }
        Some(Kind::Audio) => {
            "speech tells it in its event stream only (\"stream_format\": \"sse\"), a transcription \
             in JSON only (\"response_format\": \"json\")"
        }
        Some(Kind::Images) => "older image models tell none; gpt-image models do",
        Some(Kind::LiveSession) => "what is said in a live session is not read",
        Some(Kind::Cursor) => "its format is not published; see Cursor's own usage page",
        Some(Kind::GeminiEmbed | Kind::GeminiPredict) => "Google mostly tells none for embeddings",
        Some(Kind::Grpc) => "what this gRPC method answers is not read; the same call over REST is",
        Some(Kind::Video | Kind::FineTuning) => "told to who reads it back when it is finished",
        Some(Kind::GeminiVideo) => "Google bills videos by the second, and tells none of them",
        Some(
            Kind::Messages
            | Kind::CountTokens
            | Kind::Batch
            | Kind::Chat
            | Kind::Completions
            | Kind::Responses
            | Kind::Realtime
            | Kind::Decisions
            | Kind::InputTokens
            | Kind::Embeddings
            | Kind::Rerank
            | Kind::BatchFile
            | Kind::Gemini
            | Kind::GeminiCountTokens
            | Kind::Interactions
            | Kind::CodeAssist
            | Kind::Live
            | Kind::GeminiBatch
            | Kind::CodeAssistQuota
            | Kind::Converse
            | Kind::Invoke
            | Kind::BedrockCountTokens
            | Kind::Cohere
            | Kind::Ocr
            | Kind::Moderation
            | Kind::Speech
            | Kind::Search
            | Kind::Cache
            | Kind::Ollama
            | Kind::Unknown,
        )
        | None => "the provider told none; its own usage page may",
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jiff::tz::TimeZone;

    use super::*;
    use crate::home::Home;
    use crate::meter::exchange::tests::Case;
    use crate::meter::http::Side;
    use crate::meter::ledger::Window;
    use crate::meter::ledger::fixture::{home, row, store};
    use crate::meter::row::Row;
    use crate::meter::usage::{Tokens, UsageState};

    fn report(home: &Home) -> crate::meter::ledger::Report {
        let query = ReportQuery {
            window: Window { from: Timestamp::MIN, to: Timestamp::MAX },
            by: Vec::new(),
            project: None,
            zone: TimeZone::UTC,
            vs_previous: false,
        };
        Ledger::open(home).unwrap().report(&query).unwrap()
    }

    #[test]
    fn each_kind_is_named_with_its_remedy_and_no_more_than_the_sum_says() {
        let (_dir, home) = home();
        let silent = |n, surface: &str| Row {
            provider: "openai".to_owned(),
            surface: Some(surface.to_owned()),
            model: Some("m".to_owned()),
            stream: Some(true),
            usage: UsageState::Absent,
            tokens: Tokens::default(),
            cost_nanousd: None,
            ..row(n, "2026-11-24T00:00:00Z")
        };
        // The daemon ended.
        let cut = Row { completeness: Completeness::Interrupted, ..silent(3, "openai.chat") };
        store(
            &home,
            &[
                silent(1, "openai.chat"),
                silent(2, "openai.chat"),
                cut,
                Row { stream: Some(false), ..silent(4, "openai.audio") },
                // Not these: refused, sent elsewhere, running, told, no request to a model.
                Row { status: Some(429), ..silent(5, "openai.chat") },
                Row { status: Some(307), ..silent(10, "openai.chat") },
                Row { error_class: Some("x".to_owned()), ..silent(6, "openai.chat") },
                Row { completeness: Completeness::Open, ..silent(7, "openai.chat") },
                Row { billable: false, ..silent(8, "openai.chat") },
                row(9, "2026-11-24T00:00:00Z"),
            ],
        );
        let report = report(&home);
        let found: Vec<_> =
            report.silent.iter().map(|s| (s.requests, s.stream, s.remedy)).collect();
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].2.contains("include_usage") && found[0].0 == 2, "{found:?}");
        assert!(found.iter().any(|(_, _, remedy)| remedy.starts_with("cut")), "{found:?}");
        assert!(found.iter().any(|(_, stream, remedy)| !stream && remedy.contains("sse")));
        assert!(
            found.iter().any(|(_, _, remedy)| remedy.contains("\"response_format\": \"json\""))
        );
        for provider in ["groq", "azure"] {
            let of_whisper = remedy(provider, Some(Kind::Audio), false, Completeness::Complete);
            assert!(of_whisper.contains("verbose_json"), "{provider}");
        }
        assert_eq!(report.summary.without_usage, found.iter().map(|(n, ..)| n).sum::<u64>());
    }

    #[test]
    fn a_call_that_is_not_read_is_named_so() {
        let (_dir, home) = home();
        let case = Case {
            host: "us-central1-aiplatform.googleapis.com",
            target: "/google.cloud.aiplatform.v1.PredictionService/RawPredict",
            media: "application/grpc",
            ..Case::default()
        };
        store(
            &home,
            &[case.cut(0, Side::Server), Row { id: uuid::Uuid::from_u128(1), ..case.row() }],
        );
        let report = report(&home);
        let mut told: Vec<_> = report.silent.iter().map(|s| (s.requests, s.remedy)).collect();
        told.sort_unstable();
        assert!(told.len() == 2 && told[1].1.contains("gRPC"), "{told:?}");
        assert_eq!(report.summary.without_usage, 2);
    }

    #[test]
    fn an_answer_that_was_cut_is_among_them_as_long_as_nothing_was_told() {
        let (_dir, home) = home();
        let stream = |target, body: &str| Case {
            host: "api.openai.com",
            target,
            request: br#"{"model":"gpt-5","stream":true}"#.to_vec(),
            media: "text/event-stream",
            body: body.as_bytes().to_vec(),
            ..Case::default()
        };
        let created = "data: {\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"model\":\"gpt-5\"}}\n\n";
        let chunk =
            "data: {\"object\":\"chat.completion.chunk\",\"model\":\"gpt-5\",\"choices\":[]}\n\n";
        let whole = |case: &Case, by| case.cut(case.body.len(), by);
        let told = r#"data: {"type":"message_start","message":{"id":"m","model":"claude-sonnet-5","usage":{"input_tokens":9,"output_tokens":1}}}"#;
        let cases = [
            whole(&stream("/v1/responses", created), Side::Client),
            whole(&stream("/v1/chat/completions", chunk), Side::Server),
            // Not these: refused, told in part, no request to a model.
            whole(&Case { status: 500, ..stream("/v1/responses", created) }, Side::Client),
            whole(
                &Case {
                    host: "api.anthropic.com",
                    ..stream("/v1/messages", &format!("{told}\n\n"))
                },
                Side::Client,
            ),
            whole(&stream("/v1/responses/input_tokens", created), Side::Client),
        ];
        let classes: Vec<_> = cases.iter().map(|row| row.error_class.as_deref()).collect();
        assert_eq!(classes[..2], [Some("client_abort"), Some("upstream_cut")]);
        let reason = |row: &Row| row.cost_reason.clone().unwrap_or_default();
        assert!(cases[..2].iter().all(|row| reason(row).contains("may bill")), "{cases:#?}");
        let rows: Vec<Row> =
            (1..).zip(cases).map(|(n, row)| Row { id: uuid::Uuid::from_u128(n), ..row }).collect();
        store(&home, &rows);
        let seen = || {
            let report = report(&home);
            let silent = report.silent.iter();
            assert!(silent.clone().all(|s| s.remedy.starts_with("cut") && s.requests == 1));
            let mut kinds: Vec<_> = silent.filter_map(|s| s.surface.clone()).collect();
            kinds.sort();
            (kinds, report.summary.without_usage, report.summary.errors)
        };
        let expected = (vec!["openai.chat".to_owned(), "openai.responses".to_owned()], 2, 4);
        assert_eq!(seen(), expected);
        let later = "2026-12-24T00:00:00Z".parse().unwrap();
        assert!(crate::meter::ledger::roll_up(&home.ledger_file(), later).unwrap() > 0);
        assert_eq!(seen(), expected, "by roll-ups");
    }
}
