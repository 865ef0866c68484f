//! The limits of plans, as they were last told.

use jiff::Timestamp;
use rusqlite::{Connection, params};
use serde::Serialize;
use utoipa::ToSchema;

use super::record::{Columns, Micros};
use super::{Ledger, LedgerError};
use crate::meter::quota::Window;
use crate::meter::row::Row;

/// A limit of a plan, who told it and when.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, ToSchema)]
pub struct Quota {
    pub provider: String,
    #[serde(flatten)]
    pub window: Window,
    #[schema(value_type = String, format = DateTime)]
    pub seen_at: Timestamp,
}

impl Quota {
    /// As it stands at `now`: one that has reset since it was seen is unused, and how it stood before
    /// holds no more. `None`: then nothing is left to say.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> Option<Self> {
        let window = &self.window;
        if window.resets_at.is_none_or(|at| at > now) {
            return Some(self.clone());
        }
        window.used_bp?;
        let window = Window { used_bp: Some(0), resets_at: None, status: None, ..window.clone() };
        Some(Self { window, ..self.clone() })
    }
}

/// Keeps what a row's response told, unless something later is known. What was seen after `now` was seen
/// by a clock that ran ahead: it is older than anything.
pub(super) fn write(conn: &Connection, row: &Row, now: Timestamp) -> rusqlite::Result<()> {
    for window in &row.quota {
        // Rows of an earlier version don't say when.
        let seen_at = window.seen_at.or(row.ended_at).unwrap_or(row.started_at);
        conn.prepare_cached(
            "INSERT INTO quotas (provider, account, name, plan, used_bp, resets_at, status, seen_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET plan = coalesce(excluded.plan, plan), \
             used_bp = excluded.used_bp, resets_at = excluded.resets_at, \
             status = excluded.status, seen_at = excluded.seen_at \
             WHERE excluded.seen_at >= seen_at OR seen_at > ?",
        )?
        .execute(params![
            row.provider,
            window.account.as_deref().unwrap_or_default(),
            window.name,
            window.plan,
            window.used_bp,
            window.resets_at.map(Timestamp::as_microsecond),
            window.status,
            seen_at.as_microsecond(),
            now.as_microsecond(),
        ])?;
    }
    Ok(())
}

impl Ledger {
    /// Every limit that is known, by provider and account; the shortest window first.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn quotas(&self) -> Result<Vec<Quota>, LedgerError> {
        let mut stmt = self.conn.prepare(
            "SELECT provider, account, name, plan, used_bp, resets_at, status, seen_at FROM quotas \
             ORDER BY provider, account, resets_at IS NULL, resets_at, name",
        )?;
        let rows = stmt.query_map([], |record| {
            let mut c = Columns::new(record);
            Ok(Quota {
                provider: c.next()?,
                window: Window {
                    account: Some(c.next()?).filter(|account: &String| !account.is_empty()),
                    name: c.next()?,
                    plan: c.next()?,
                    used_bp: c.next()?,
                    resets_at: c.next::<Option<Micros>>()?.map(|at| at.0),
                    status: c.next()?,
                    seen_at: None,
                },
                seen_at: c.next::<Micros>()?.0,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::ledger::fixture;
    use crate::meter::ledger::schema::open_writer;

    #[test]
    fn the_latest_word_counts_in_whatever_order_rows_come() {
        let (_dir, home) = fixture::home();
        let told = |n, at: &str, used| Row {
            quota: vec![Window {
                name: "5h".to_owned(),
                used_bp: Some(used),
                resets_at: Some(fixture::at("2026-11-25T05:00:00Z")),
                ..Window::default()
            }],
            ..fixture::row(n, at)
        };
        let rows = [
            // By a clock that ran ahead.
            told(5, "2026-11-26T00:00:00Z", 500),
            told(1, "2026-11-25T01:00:00Z", 100),
            told(3, "2026-11-25T03:00:00Z", 300),
            told(2, "2026-11-25T02:00:00Z", 200),
            fixture::row(4, "2026-11-25T04:00:00Z"),
        ];
        let now = fixture::at("2026-11-25T05:00:00Z");
        let (conn, _) = open_writer(&home.ledger_file()).unwrap();
        rows.iter().for_each(|row| write(&conn, row, now).unwrap());
        let quotas = Ledger::open(&home).unwrap().quotas().unwrap();
        assert_eq!(quotas.len(), 1);
        assert_eq!(quotas[0].window.used_bp, Some(300));
        assert_eq!(quotas[0].seen_at, fixture::at("2026-11-25T03:00:00Z"));
    }

    #[test]
    fn of_answers_that_overlap_the_last_word_counts_not_the_last_end() {
        let (_dir, home) = fixture::home();
        let told = |n, ended: &str, seen: &str, used, plan: Option<&str>| Row {
            ended_at: Some(fixture::at(ended)),
            quota: vec![Window {
                name: "5h".to_owned(),
                used_bp: Some(used),
                plan: plan.map(str::to_owned),
                seen_at: Some(fixture::at(seen)),
                ..Window::default()
            }],
            ..fixture::row(n, "2026-11-25T01:00:00Z")
        };
        let (short, long) = ("2026-11-25T01:00:03Z", "2026-11-25T01:00:05Z");
        let rows = [
            told(2, short, "2026-11-25T01:00:02Z", 6000, Some("plus")),
            // The headers of what had begun before: an answer, or the handshake of the socket.
            told(1, long, "2026-11-25T01:00:01Z", 1000, None),
        ];
        let now = fixture::at("2026-11-25T05:00:00Z");
        let (conn, _) = open_writer(&home.ledger_file()).unwrap();
        let seen = |row: &Row| {
            write(&conn, row, now).unwrap();
            let quota = Ledger::open(&home).unwrap().quotas().unwrap().remove(0);
            (quota.window.used_bp, quota.window.plan, quota.seen_at.to_string())
        };
        let plus = || Some("plus".to_owned());
        let expected = (Some(6000), plus(), "2026-11-25T01:00:02Z".to_owned());
        assert_eq!(rows.each_ref().map(seen), [expected.clone(), expected]);
        // Headers don't name the plan, which is no word against it.
        let later = told(3, long, "2026-11-25T01:00:04Z", 7000, None);
        assert_eq!(seen(&later), (Some(7000), plus(), "2026-11-25T01:00:04Z".to_owned()));
        let json = serde_json::to_string(&Ledger::open(&home).unwrap().quotas().unwrap()).unwrap();
        assert_eq!(json.matches("seen_at").count(), 1, "{json}");
    }

    #[test]
    fn accounts_do_not_overwrite_each_other() {
        let (_dir, home) = fixture::home();
        let told = |n, account: Option<&str>, used| Row {
            quota: vec![Window {
                name: "5h".to_owned(),
                account: account.map(str::to_owned),
                used_bp: Some(used),
                ..Window::default()
            }],
            ..fixture::row(n, "2026-11-25T01:00:00Z")
        };
        let rows = [
            told(1, Some("aa"), 100),
            told(2, Some("bb"), 200),
            told(3, None, 300),
            told(4, Some("aa"), 400),
        ];
        fixture::store(&home, &rows);
        let quotas = Ledger::open(&home).unwrap().quotas().unwrap();
        let seen: Vec<_> =
            quotas.iter().map(|q| (q.window.account.as_deref(), q.window.used_bp)).collect();
        assert_eq!(seen, [(None, Some(300)), (Some("aa"), Some(400)), (Some("bb"), Some(200))]);
    }

    #[test]
    fn what_was_known_without_an_account_is_kept() {
        let mut conn = Connection::open_in_memory().unwrap();
        super::super::schema::MIGRATIONS.to_version(&mut conn, 4).unwrap();
        conn.execute(
            "INSERT INTO quotas VALUES ('anthropic', '5h', 'max', 42, 1, 'allowed', 2)",
            [],
        )
        .unwrap();
        super::super::schema::MIGRATIONS.to_latest(&mut conn).unwrap();
        let kept: (String, String, i64) = conn
            .query_row("SELECT account, name, used_bp FROM quotas", [], |r| {
                Ok((r.get(0)?, r.get(1)?, r.get(2)?))
            })
            .unwrap();
        assert_eq!(kept, (String::new(), "5h".to_owned(), 42));
    }
}
