//! What is left of the plans: `report --quota`, and a line of `status` for each limit.

use std::io::Write;

use jiff::{SpanRound, Timestamp, Unit, ZonedDateTime};

use super::output::{Column, Style, Table, clean, local, write_json};
use crate::home::Home;
use crate::meter::ledger::{Ledger, Quota};

/// The table, or the document `{ "quotas": [ … ] }`.
pub fn show(
    home: &Home,
    json: bool,
    style: Style,
    now: &ZonedDateTime,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let quotas = Ledger::open(home)?.quotas()?;
    if json {
        return write_json(out, &serde_json::json!({ "quotas": quotas }));
    }
    let quotas: Vec<Quota> = quotas.iter().filter_map(|q| q.at(now.timestamp())).collect();
    if quotas.is_empty() {
        writeln!(out, "No limits of a plan were seen yet.")?;
        return Ok(());
    }
    let mut table = Table::new(&[
        Column::text("PROVIDER", 0),
        Column::text("ACCOUNT", 5),
        Column::text("PLAN", 3),
        Column::text("LIMIT", 0),
        Column::number("USED", 0),
        Column::text("RESETS", 1),
        Column::text("STATUS", 2),
        Column::text("SEEN", 4),
    ]);
    for quota in &quotas {
        let window = &quota.window;
        let local = |at| local(at, now.time_zone(), "%m-%d %H:%M");
        table.row(vec![
            clean(&quota.provider),
            window.account.as_deref().map(clean).unwrap_or_default(),
            window.plan.as_deref().map(clean).unwrap_or_default(),
            clean(&window.name),
            used(quota).unwrap_or_default(),
            window.resets_at.map(local).unwrap_or_default(),
            window.status.as_deref().map(clean).unwrap_or_default(),
            local(quota.seen_at),
        ]);
    }
    out.write_all(table.render(style).as_bytes())?;
    Ok(())
}

/// `anthropic 5h 42% used, resets in 2h 5m`: what still holds, for people.
pub fn lines(quotas: &[Quota], now: Timestamp) -> Vec<String> {
    let account = |quota: &Quota| {
        let another = |other: &Quota| {
            other.provider == quota.provider && other.window.account != quota.window.account
        };
        let account = quota.window.account.as_deref().filter(|_| quotas.iter().any(another))?;
        Some(format!(" (account {})", clean(account)))
    };
    let line = |quota: &Quota| {
        let quota = &quota.at(now)?;
        let account = account(quota).unwrap_or_default();
        let what = format!("{}{account} {}", clean(&quota.provider), clean(&quota.window.name));
        let used = used(quota).map(|used| format!("{used} used"));
        let status = quota.window.status.as_deref().map(clean);
        let resets = quota.window.resets_at.and_then(|at| until(at, now));
        let resets = resets.map(|left| format!("resets in {left}"));
        let said: Vec<String> = [used, status, resets].into_iter().flatten().collect();
        Some(format!("{what}: {}", said.join(", ")))
    };
    quotas.iter().filter_map(line).collect()
}

/// `42%`.
pub fn used(quota: &Quota) -> Option<String> {
    Some(format!("{}%", quota.window.used_bp?.div_ceil(100)))
}

/// `2h 5m`; `None`: it has been.
pub fn until(at: Timestamp, now: Timestamp) -> Option<String> {
    let minute = SpanRound::new().smallest(Unit::Minute).largest(Unit::Day).days_are_24_hours();
    let span = now.until(at).ok().filter(|_| at > now)?.round(minute).ok()?;
    Some(match (span.get_days(), span.get_hours(), span.get_minutes()) {
        (0, 0, minutes) => format!("{minutes}m"),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::ledger::fixture::{at, home, row, store};
    use crate::meter::quota::Window;
    use crate::meter::row::Row;

    fn quotas() -> (tempfile::TempDir, Home) {
        let (dir, home) = home();
        let window = |name: &str, used, resets: &str| Window {
            name: name.to_owned(),
            used_bp: Some(used),
            resets_at: Some(at(resets)),
            ..Window::default()
        };
        let rows = [Row {
            quota: vec![
                window("7d", 1300, "2026-11-28T09:00:00Z"),
                window("5h", 4217, "2026-11-25T14:05:00Z"),
            ],
            ..row(1, "2026-11-25T11:00:00Z")
        }];
        store(&home, &rows);
        (dir, home)
    }

    #[test]
    fn two_accounts_of_a_provider_are_told_apart() {
        let quota = |provider: &str, account: &str| Quota {
            provider: provider.to_owned(),
            window: Window {
                name: "5h".to_owned(),
                account: Some(account.to_owned()),
                used_bp: Some(100),
                ..Window::default()
            },
            seen_at: at("2026-11-25T12:00:00Z"),
        };
        let all = [quota("anthropic", "aa"), quota("anthropic", "bb"), quota("openai", "cc")];
        assert_eq!(
            lines(&all, at("2026-11-25T12:00:00Z")),
            [
                "anthropic (account aa) 5h: 1% used",
                "anthropic (account bb) 5h: 1% used",
                "openai 5h: 1% used",
            ]
        );
    }

    #[test]
    fn what_a_limit_was_before_it_reset_is_not_told() {
        let (_dir, home) = home();
        let window = |name: &str, used_bp| Window {
            name: name.to_owned(),
            used_bp,
            resets_at: Some(at("2026-11-25T14:00:00Z")),
            status: Some("rejected".to_owned()),
            ..Window::default()
        };
        let quota = vec![window("5h", Some(10_000)), window("overage", None)];
        store(&home, &[Row { quota, ..row(1, "2026-11-25T11:00:00Z") }]);
        let table = |now: &str| {
            let mut out = Vec::new();
            show(&home, false, Style::default(), &now.parse().unwrap(), &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let quotas = Ledger::open(&home).unwrap().quotas().unwrap();
        assert_eq!(
            lines(&quotas, at("2026-11-25T13:59:59Z")),
            [
                "anthropic 5h: 100% used, rejected, resets in 0m",
                "anthropic overage: rejected, resets in 0m",
            ]
        );
        assert!(table("2026-11-25T13:59:59+00:00[UTC]").contains("rejected"));
        assert_eq!(lines(&quotas, at("2026-11-25T14:00:00Z")), ["anthropic 5h: 0% used"]);
        let after = table("2026-11-25T14:00:00+00:00[UTC]");
        assert!(after.contains("0%") && !after.contains("overage"), "{after}");
        assert!(!after.contains("rejected") && !after.contains("14:00"), "{after}");
    }

    #[test]
    fn limits_are_told_the_next_to_end_first() {
        let (_dir, home) = quotas();
        let quotas = Ledger::open(&home).unwrap().quotas().unwrap();
        assert_eq!(
            lines(&quotas, at("2026-11-25T12:00:00Z")),
            ["anthropic 5h: 43% used, resets in 2h 5m", "anthropic 7d: 13% used, resets in 2d 21h"]
        );
        // Past its end the window is a new one.
        assert_eq!(lines(&quotas, at("2026-11-25T15:00:00Z"))[0], "anthropic 5h: 0% used");
        let now = "2026-11-25T13:00:00+01:00[Europe/Berlin]".parse().unwrap();
        let said = |json| {
            let mut out = Vec::new();
            show(&home, json, Style::default(), &now, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let table = said(false);
        assert!(table.contains("43%") && table.contains("11-25 15:05"), "{table}");
        let json: serde_json::Value = serde_json::from_str(&said(true)).unwrap();
        assert_eq!(json["quotas"][0]["used_bp"], 4217);
        assert_eq!(json["quotas"][0]["provider"], "anthropic");
    }
}
