//! `project rename`, `merge`, `restore`: rules about names; no row changes.

use std::collections::BTreeSet;
use std::io::Write;

use serde::Serialize;

use super::super::output::{UsageError, clean, write_json};
use super::{How, MergeArgs, RenameArgs, RestoreArgs, existing, name};
use crate::home::Home;
use crate::meter::ledger::Ledger;
use crate::meter::projects::{self, Names};

/// What a recorded name is shown as.
#[derive(Debug, Serialize)]
struct Change {
    recorded: String,
    before: String,
    after: String,
}

pub(super) fn rename(home: &Home, args: &RenameArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let ledger = Ledger::open(home)?;
    let (old, new) = (existing(&ledger, &args.old)?, name(&args.new)?);
    if old == new {
        return Err(UsageError(format!("{old:?} is its name already")).into());
    }
    let shown = ledger.shown_project(&new);
    let merge = "`halton-meter project merge` puts the two together";
    // A rename leaves the name with its requests; only they may have it back.
    if shown != new && shown != old {
        let has = format!("what was recorded as {new:?} is shown as {shown:?}");
        return Err(UsageError(format!("{has}; {merge}")).into());
    }
    if shown == new && ledger.project_names()?.contains(&new) {
        return Err(UsageError(format!("there is a project {new:?} already; {merge}")).into());
    }
    change(home, &ledger, args.how, out, |names| {
        names.show_as(&old, &new);
        Ok(())
    })
}

pub(super) fn merge(home: &Home, args: &MergeArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let ledger = Ledger::open(home)?;
    let from = args.from.iter().map(|text| existing(&ledger, text));
    let from: BTreeSet<String> = from.collect::<anyhow::Result<_>>()?;
    let into = ledger.shown_project(&name(&args.into)?).to_owned();
    if from.contains(&into) {
        return Err(UsageError(format!("{into:?} can't become part of itself")).into());
    }
    change(home, &ledger, args.how, out, |names| {
        from.iter().for_each(|from| names.show_as(from, &into));
        Ok(())
    })
}

pub(super) fn restore(home: &Home, args: &RestoreArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let ledger = Ledger::open(home)?;
    change(home, &ledger, args.how, out, |names| {
        if names.restore(&args.name) {
            return Ok(());
        }
        let name = &args.name;
        Err(UsageError(format!("{name:?} was neither renamed nor merged, and nothing into it"))
            .into())
    })
}

fn change(
    home: &Home,
    ledger: &Ledger,
    how: How,
    out: &mut dyn Write,
    edit: impl FnOnce(&mut Names) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let path = home.projects_file();
    if !how.dry_run {
        home.create()?;
    }
    let alone = home.change_one_by_one();
    let before = projects::read(&path)?;
    let mut after = before.clone();
    edit(&mut after)?;
    if !how.dry_run {
        projects::write(&path, &after)?;
    }
    drop(alone);
    let changes = changes(ledger.recorded_names()?, &before, &after);
    if how.json {
        let document = serde_json::json!({ "dry_run": how.dry_run, "changes": changes });
        return write_json(out, &document);
    }
    let verb = if how.dry_run { "would be" } else { "is" };
    for Change { recorded, before, after } in &changes {
        let (recorded, after) = (clean(recorded), clean(after));
        let before = clean(before);
        let was = if recorded == before { String::new() } else { format!(" (was {before})") };
        if recorded == after {
            writeln!(out, "{recorded} {verb} a project of its own again{was}.")?;
        } else {
            writeln!(out, "{recorded} {verb} shown as {after}{was}.")?;
        }
    }
    if !how.dry_run {
        writeln!(out, "It holds for all requests, past and to come; rows keep what was recorded.")?;
    }
    Ok(())
}

/// Names of the ledger, or of a rule, that are shown differently.
fn changes(recorded: BTreeSet<String>, before: &Names, after: &Names) -> Vec<Change> {
    let rules = before.rules().chain(after.rules()).map(|(from, _)| from.to_owned());
    let all: BTreeSet<String> = recorded.into_iter().chain(rules).collect();
    all.into_iter()
        .map(|recorded| Change {
            before: before.shown(&recorded).to_owned(),
            after: after.shown(&recorded).to_owned(),
            recorded,
        })
        .filter(|change| change.before != change.after)
        .collect()
}
