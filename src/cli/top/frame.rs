//! What a frame shows: the daemon's word on what is open, the ledger's on the rest.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, ZonedDateTime};
use serde::Serialize;
use serde_json::Value;

use super::super::client::{self, Tree};
use super::super::range::RangeArgs;
use super::super::status::{self, State};
use super::super::{Context, live};
use crate::meter::budget::{self, Standing};
use crate::meter::ledger::{
    Coverage, GroupBy, Grouping, Ledger, Quota, ReportQuery, Totals, Window,
};
use crate::meter::row::{Completeness, PublicRow, Row};

/// For an answer of a process of ours.
const ASK: Duration = Duration::from_millis(500);
/// Who began earlier is not looked for among those that run.
const RECENT: SignedDuration = SignedDuration::from_hours(2);
const ROWS: usize = 200;
/// What "now" is for a rate.
const MINUTE: SignedDuration = SignedDuration::from_mins(1);
/// Finished requests in the document.
const LAST: usize = 30;

/// See `docs/json.md`.
#[derive(Clone, Debug, Serialize)]
pub struct Frame {
    pub at: Timestamp,
    pub state: State,
    /// Why nothing is metered, if the daemon says so.
    pub reasons: Vec<String>,
    /// What the edge passes on itself and what is metered; `None`: one of the two is not known.
    pub open_connections: Option<u64>,
    pub metered_connections: Option<u64>,
    pub today: Totals,
    pub last_minute: Minute,
    /// Requests without an end yet, the oldest first.
    pub running: Vec<PublicRow>,
    /// The latest that have ended.
    pub last: Vec<PublicRow>,
    /// Today, by project, model and client.
    pub groupings: Vec<Grouping>,
    /// Today's.
    pub coverage: Coverage,
    pub quotas: Vec<Quota>,
    pub budgets: Vec<Standing>,
}

/// What ended within the last minute.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Minute {
    pub requests: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cost_nanousd: Option<i64>,
    /// What a plan covers; nothing of it is in the cost.
    pub subscription_nanousd: Option<i64>,
    /// Whose cost is not known.
    pub unpriced: u64,
    /// Output in a second, on the average of the minute.
    pub output_tokens_per_second: u64,
}

impl Frame {
    pub fn look(ctx: &Context, now: &ZonedDateTime) -> anyhow::Result<Self> {
        let tree = Tree::look(ctx, ASK);
        let state = status::state_of(ctx, &tree);
        // Nothing but the daemon knows of what is open in it.
        let metered = match tree.daemon {
            Some(_) => client::api(ctx, "/v1/actors", ASK).ok().as_ref().and_then(open_in_tap),
            None => Some(0),
        };
        let raw =
            tree.edge_answer.as_ref().and_then(|answer| answer.pointer("/tunnels/open")?.as_u64());
        let ledger = Ledger::open(&ctx.home)?;
        let report = ledger.report(&ReportQuery {
            window: RangeArgs::default().window("today", now)?,
            by: vec![GroupBy::Project, GroupBy::Model, GroupBy::Client],
            project: None,
            zone: now.time_zone().clone(),
            vs_previous: false,
        })?;
        let at = now.timestamp();
        let since = at.checked_sub(RECENT).unwrap_or(Timestamp::MIN);
        let rows = live::rows(&ledger, since, ROWS)?;
        let last_minute = Minute::of(&ledger.totals_ended(since, Minute::until(at))?);
        let (mut running, mut last): (Vec<Row>, Vec<Row>) =
            rows.into_iter().partition(|row| row.completeness == Completeness::Open);
        // What a daemon that is gone had in hand has ended, whoever has to say so still.
        running.retain(|_| tree.daemon.is_some());
        running.reverse();
        last.sort_by_key(|row| std::cmp::Reverse(row.ended_at));
        last.truncate(LAST);
        let public = |row| PublicRow::new(row, false);
        Ok(Self {
            at,
            state,
            reasons: status::reasons(&tree.health),
            open_connections: open(raw, metered),
            metered_connections: metered,
            today: report.summary,
            last_minute,
            running: running.into_iter().map(public).collect(),
            last: last.into_iter().map(public).collect(),
            groupings: report.groupings,
            coverage: report.coverage,
            quotas: ledger.quotas()?,
            budgets: budget::standings(&ctx.home, now).unwrap_or_default(),
        })
    }
}

/// What was handed to the daemon is no longer open at the edge.
fn open(raw: Option<u64>, metered: Option<u64>) -> Option<u64> {
    raw?.checked_add(metered?)
}

fn open_in_tap(answer: &Value) -> Option<u64> {
    let actors = answer.get("actors")?.as_array()?;
    actors.iter().find_map(|actor| actor.pointer("/observed/tap/open")?.as_u64())
}

impl Minute {
    fn until(now: Timestamp) -> Window {
        Window {
            from: now.checked_sub(MINUTE).unwrap_or(Timestamp::MIN),
            // With what ended this instant, and without what is dated ahead: the clock may have been.
            to: now.saturating_add(SignedDuration::from_secs(1)).unwrap_or(now),
        }
    }

    fn of(ended: &Totals) -> Self {
        let output_tokens = ended.tokens.output.unwrap_or(0);
        Self {
            requests: ended.requests,
            input_tokens: ended.tokens.total_input(),
            output_tokens,
            cost_nanousd: ended.cost_nanousd,
            subscription_nanousd: ended.subscription_nanousd,
            unpriced: ended.unknown(),
            output_tokens_per_second: output_tokens / MINUTE.as_secs().unsigned_abs(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::ledger::fixture::{at, home, row, store};
    use crate::meter::row::Billing;

    #[test]
    fn a_minute_is_all_that_ended_in_it() {
        let (_dir, home) = home();
        let ended = |n, began: &str, end: Option<&str>| {
            let mut row = row(n, began);
            row.ended_at = end.map(at);
            row.tokens.output = Some(600);
            row
        };
        let rows = [
            ended(1, "2026-11-25T10:30:00Z", Some("2026-11-25T11:59:30Z")),
            ended(2, "2026-11-25T11:00:00Z", Some("2026-11-25T11:59:00Z")),
            ended(3, "2026-11-25T11:00:00Z", Some("2026-11-25T11:58:59Z")),
            ended(4, "2026-11-25T11:00:00Z", None),
            ended(5, "2026-11-25T13:00:00Z", Some("2026-11-25T13:00:10Z")),
        ];
        store(&home, &rows);
        let minute = || {
            let ledger = Ledger::open(&home).unwrap();
            let (began, now) = ("2026-11-25T10:00:00Z", "2026-11-25T12:00:00Z");
            Minute::of(&ledger.totals_ended(at(began), Minute::until(at(now))).unwrap())
        };
        assert_eq!((minute().requests, minute().output_tokens_per_second), (2, 20));
        assert_eq!(
            (minute().cost_nanousd, minute().subscription_nanousd),
            (Some(24_600_000), None)
        );
        let mut covered = ended(6, "2026-11-25T11:59:10Z", Some("2026-11-25T11:59:20Z"));
        covered.billing = Billing::Subscription;
        let mut unpriced = ended(7, "2026-11-25T11:59:10Z", Some("2026-11-25T11:59:20Z"));
        unpriced.cost_nanousd = None;
        store(&home, &[covered, unpriced]);
        assert_eq!(
            (minute().cost_nanousd, minute().subscription_nanousd, minute().unpriced),
            (Some(24_600_000), Some(12_300_000), 1)
        );
        let many = (8..306).map(|n| ended(n, "2026-11-25T11:59:10Z", Some("2026-11-25T11:59:20Z")));
        store(&home, &many.collect::<Vec<_>>());
        assert_eq!(minute().requests, 302);
        assert_eq!(Minute::of(&Totals::default()), Minute::default());
    }

    #[test]
    fn open_is_the_sum_of_both_or_not_known() {
        assert_eq!(open(Some(2), Some(1)), Some(3));
        assert_eq!(open(Some(0), Some(1)), Some(1));
        assert_eq!((open(None, Some(1)), open(Some(2), None)), (None, None));
    }

    #[test]
    fn the_taps_connections_are_found_in_whatever_order_actors_come() {
        let answer = serde_json::json!({"actors": [
            {"id": "health", "observed": null},
            {"id": "meter.tap", "observed": {"fault": null, "tap": {"open": 3}}},
        ]});
        assert_eq!(open_in_tap(&answer), Some(3));
        assert_eq!(open_in_tap(&serde_json::json!({})), None);
    }
}
