//! The resources that read the ledger.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use clap::ValueEnum;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::dto::{
    CoverageAnswer, CoverageQuery, FlushAnswer, NoQuery, RequestsAnswer, RequestsQuery, StatsQuery,
};
use super::problem::Problem;
use super::reads::read;
use super::routes::Api;
use crate::actors::meter::Meter;
use crate::meter::bodies::Shelf;
use crate::meter::ledger::{
    Cursor, GroupBy, Ledger, PublicPage, Report, ReportQuery, RequestFilter, Window,
};

/// Rows of a page.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;
/// What a flush may take, and how often the observers are looked at meanwhile.
const FLUSH: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(4);
const QUIET_LOOKS: u32 = 3;

/// Requests, newest first.
#[utoipa::path(
    get,
    tag = "ledger",
    path = "/v1/requests",
    params(RequestsQuery),
    security(("token" = [])),
    responses(
        (status = 200, description = "a page of requests", body = RequestsAnswer),
        (status = 400, description = "a parameter is wrong", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "the ledger can't be read", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_requests(
    api: web::Data<Api>,
    query: web::Query<RequestsQuery>,
) -> Result<HttpResponse, Problem> {
    let query = query.into_inner();
    let now = Timestamp::now();
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Problem::bad_request(format!("limit: expected 1 to {PAGE_MAX}")));
    }
    let cursor = query.cursor.as_deref().map(str::parse::<Cursor>).transpose();
    let since = moment("since", query.since.as_deref(), now)?;
    let until = moment("until", query.until.as_deref(), now)?;
    in_order(since.unwrap_or(Timestamp::MIN), until.unwrap_or(Timestamp::MAX))?;
    let filter = RequestFilter {
        since,
        until,
        project: query.project,
        model: query.model,
        provider: query.provider,
        run: query.run,
        all: query.all,
        limit: Some(limit),
        before: cursor.map_err(|e| Problem::bad_request(format!("cursor: {e}")))?,
    };
    let shelf = Shelf::of(&api.home);
    let page =
        read(&api, move |ledger| Ok(PublicPage::new(ledger.requests(&filter)?, &shelf))).await?;
    let PublicPage { requests, next } = page;
    Ok(HttpResponse::Ok().json(RequestsAnswer { requests, next }))
}

/// Sums: tokens, cost, latency, coverage. The document of `halton-meter report --json`.
#[utoipa::path(
    get,
    tag = "ledger",
    path = "/v1/stats",
    params(StatsQuery),
    security(("token" = [])),
    responses(
        (status = 200, description = "see docs/json.md, `report`", body = Object),
        (status = 400, description = "a parameter is wrong", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "the ledger can't be read", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_stats(
    api: web::Data<Api>,
    query: web::Query<StatsQuery>,
) -> Result<HttpResponse, Problem> {
    let query = query.into_inner();
    let window = window(query.since.as_deref(), query.until.as_deref())?;
    let by = query.by.as_deref().map(groupings).transpose()?.unwrap_or_default();
    let report = ReportQuery {
        window,
        by,
        project: query.project,
        zone: TimeZone::system(),
        vs_previous: false,
    };
    let answer = move |ledger: &Ledger| {
        let dated_ahead = ledger.dated_ahead(window, Timestamp::now())?;
        Ok(Report { dated_ahead, ..ledger.report(&report)? })
    };
    Ok(HttpResponse::Ok().json(read(&api, answer).await?))
}

/// How much of the traffic was metered, and what was not: when, to whom and why.
#[utoipa::path(
    get,
    tag = "ledger",
    path = "/v1/coverage",
    params(CoverageQuery),
    security(("token" = [])),
    responses(
        (status = 200, description = "what was metered and what not", body = CoverageAnswer),
        (status = 400, description = "a parameter is wrong", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "the ledger can't be read", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_coverage(
    api: web::Data<Api>,
    query: web::Query<CoverageQuery>,
) -> Result<HttpResponse, Problem> {
    let window = window(query.since.as_deref(), query.until.as_deref())?;
    let coverage = read(&api, move |ledger| ledger.coverage(window)).await?;
    Ok(HttpResponse::Ok().json(CoverageAnswer { from: window.from, to: window.to, coverage }))
}

/// Waits, a second at most, until finished exchanges are in the ledger.
///
/// For those who read the ledger right after a program has ended.
#[utoipa::path(
    get,
    tag = "ledger",
    path = "/v1/flush",
    security(("token" = [])),
    responses(
        (status = 200, description = "whether they are there", body = FlushAnswer),
        (status = 400, description = "it has no parameters", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_flush(api: web::Data<Api>, _: web::Query<NoQuery>) -> HttpResponse {
    let deadline = Instant::now() + FLUSH;
    let settled = settle(&api.meter, deadline).await;
    let intake = api.meter.intake().clone();
    let bodies = api.meter.bodies().clone();
    let flushed = web::block(move || {
        let rows = intake.flush(deadline.into_std());
        let left = deadline.saturating_duration_since(Instant::now());
        rows && bodies.flush(left)
    })
    .await;
    HttpResponse::Ok().json(FlushAnswer { flushed: settled && flushed.unwrap_or(false) })
}

/// Waits until the observers have nothing to do for a few looks in a row: what a client did last
/// before it ended may just be on its way to them.
async fn settle(meter: &Meter, deadline: Instant) -> bool {
    let mut quiet = 0;
    while quiet < QUIET_LOOKS {
        if Instant::now() >= deadline {
            return false;
        }
        let busy = meter.tap().is_some_and(|tap| {
            tap.hurry();
            let now = tap.snapshot();
            now.observer_bytes > 0 || now.closing > 0
        });
        quiet = if busy { 0 } else { quiet + 1 };
        tokio::time::sleep(LOOK).await;
    }
    true
}

/// The last 30 days, unless something else is asked for.
pub(super) fn window(since: Option<&str>, until: Option<&str>) -> Result<Window, Problem> {
    let now = Timestamp::now();
    let window = Window {
        from: moment("since", Some(since.unwrap_or("30d")), now)?.unwrap_or(Timestamp::MIN),
        // "Up to now" includes what began this instant.
        to: moment("until", until, now)?
            .unwrap_or_else(|| now.saturating_add(SignedDuration::from_secs(1)).unwrap_or(now)),
    };
    in_order(window.from, window.to)?;
    Ok(window)
}

/// A list with commas, as `report --by` takes it.
fn groupings(list: &str) -> Result<Vec<GroupBy>, Problem> {
    let one = |name: &str| {
        GroupBy::from_str(name.trim(), false).map_err(|_| {
            Problem::bad_request(
                "by: expected project, model, provider, client, session, agent or day, several with commas",
            )
        })
    };
    let by = list.split(',').map(one).collect::<Result<Vec<_>, _>>()?;
    Ok(GroupBy::unique(&by))
}

fn in_order(since: Timestamp, until: Timestamp) -> Result<(), Problem> {
    if since > until {
        return Err(Problem::bad_request("since is later than until"));
    }
    Ok(())
}

/// A timestamp, or a span back from now.
fn moment(name: &str, text: Option<&str>, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let bad = || {
        Problem::bad_request(format!(
            "{name}: expected a timestamp like 2026-01-31T12:00:00Z, or a span like 30m, 12h, 7d"
        ))
    };
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(Some(at));
    }
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        Some('w') => 7 * 86_400,
        Some(_) | None => return Err(bad()),
    };
    let count: i64 = text.get(..text.len() - 1).and_then(|n| n.parse().ok()).ok_or_else(bad)?;
    if count < 0 {
        return Err(bad());
    }
    let span = count.checked_mul(unit).map(SignedDuration::from_secs).ok_or_else(bad)?;
    Ok(Some(now.checked_sub(span).unwrap_or(Timestamp::MIN)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_groupings_come_with_commas() {
        let by = |list| groupings(list).ok();
        assert_eq!(by("day"), Some(vec![GroupBy::Day]));
        assert_eq!(by("project,day,project,day"), Some(vec![GroupBy::Project, GroupBy::Day]));
        for wrong in ["", "x", "project,", "project day"] {
            assert_eq!(by(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn moments_are_timestamps_or_spans_back() {
        let now: Timestamp = "2026-11-02T00:00:00Z".parse().unwrap();
        let at = |text| moment("since", Some(text), now).ok().flatten().map(|t| t.to_string());
        assert_eq!(at("1d").as_deref(), Some("2026-11-01T00:00:00Z"));
        assert_eq!(at("90s").as_deref(), Some("2026-11-01T23:58:30Z"));
        assert_eq!(at("2026-11-01T12:00:00+02:00").as_deref(), Some("2026-11-01T10:00:00Z"));
        assert_eq!(at("9223372036854775807s"), Some(Timestamp::MIN.to_string()));
        for wrong in ["", "d", "-1d", "1y", "1é", "é", "yesterday", "9223372036854775807w"] {
            assert_eq!(at(wrong), None, "{wrong}");
        }
    }
}
