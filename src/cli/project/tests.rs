use serde_json::Value;

use super::*;
use crate::meter::ledger::fixture::{home, row, store};
use crate::meter::row::Row;
use crate::meter::usage::UsageState;

fn with_rows() -> (tempfile::TempDir, Home) {
    let (dir, home) = home();
    let of = |n, project: &str| Row {
        project: Some(project.to_owned()),
        project_source: Some("git".to_owned()),
        cwd: Some(format!("/w/{project}")),
        branch: Some("main".to_owned()),
        ..row(n, "2026-11-24T00:00:00Z")
    };
    store(&home, &[of(1, "shop"), of(2, "shop-copy"), of(3, "shop-copy"), of(4, "api")]);
    (dir, home)
}

/// What a command line says.
fn says(home: &Home, line: &str) -> anyhow::Result<String> {
    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(subcommand)]
        command: ProjectCommand,
    }
    let line = clap::Parser::try_parse_from(line.split(' ')).map(|line: Line| line.command)?;
    let now = "2026-11-25T12:00:00+00:00[UTC]".parse().unwrap();
    let mut out = Vec::new();
    act(home, &line, Style::default(), &now, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn projects(home: &Home) -> Vec<(String, u64)> {
    let document: Value =
        serde_json::from_str(&says(home, "project list --json").unwrap()).unwrap();
    let project =
        |p: &Value| (p["project"].as_str().unwrap().to_owned(), p["requests"].as_u64().unwrap());
    document["projects"].as_array().unwrap().iter().map(project).collect()
}

fn pairs(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
}

#[test]
fn names_change_and_come_back() {
    let (_dir, home) = with_rows();
    let start = pairs(&[("shop-copy", 2), ("api", 1), ("shop", 1)]);
    assert_eq!(projects(&home), start);
    for dry in ["rename api backend --dry-run", "merge shop-copy api shop --dry-run"] {
        assert!(says(&home, &format!("project {dry}")).unwrap().contains("would be shown as"));
        assert_eq!(projects(&home), start, "{dry}");
    }
    let said = says(&home, "project rename api backend").unwrap();
    assert!(said.contains("api is shown as backend."), "{said}");
    says(&home, "project merge shop-copy shop").unwrap();
    assert_eq!(projects(&home), pairs(&[("shop", 3), ("backend", 1)]));
    let list = says(&home, "project list").unwrap();
    assert!(list.contains("shop, shop-copy"), "{list}");
    let shown = says(&home, "project show shop-copy").unwrap();
    for part in ["3 requests", "$0.0369", "git (3)", "/w/shop-copy (2), /w/shop (1)", "main (3)"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    // By the old name too.
    says(&home, "project rename api service").unwrap();
    says(&home, "project restore shop").unwrap();
    assert_eq!(projects(&home), pairs(&[("shop-copy", 2), ("service", 1), ("shop", 1)]));
    says(&home, "project restore api").unwrap();
    assert_eq!(projects(&home), start);
}

#[test]
fn after_several_renames_the_recorded_name_comes_back_and_a_rename_goes_one_step_back() {
    let (_dir, home) = with_rows();
    for rename in ["api backend", "backend service"] {
        says(&home, &format!("project rename {rename}")).unwrap();
    }
    says(&home, "project rename service backend").unwrap();
    let renamed = |name| pairs(&[("shop-copy", 2), (name, 1), ("shop", 1)]);
    let mut shown = projects(&home);
    shown.sort();
    let mut expected = renamed("backend");
    expected.sort();
    assert_eq!(shown, expected);
    says(&home, "project rename backend service").unwrap();
    let would = says(&home, "project restore service --dry-run").unwrap();
    assert!(would.contains("api would be a project of its own again (was service)."), "{would}");
    says(&home, "project restore service").unwrap();
    assert_eq!(projects(&home), pairs(&[("shop-copy", 2), ("api", 1), ("shop", 1)]));
}

#[test]
fn a_name_that_a_rename_freed_goes_back_to_its_own_requests_alone() {
    let (_dir, home) = with_rows();
    says(&home, "project rename api tmp").unwrap();
    let renamed = pairs(&[("shop-copy", 2), ("shop", 1), ("tmp", 1)]);
    assert_eq!(projects(&home), renamed);
    for how in ["", " --dry-run"] {
        let error = says(&home, &format!("project rename shop api{how}")).unwrap_err();
        assert!(error.is::<UsageError>(), "{error}");
        assert!(error.to_string().contains("shown as \"tmp\"; `halton-meter project merge`"));
        assert_eq!(projects(&home), renamed);
    }
    let said = says(&home, "project rename tmp api").unwrap();
    assert!(said.contains("api is a project of its own again (was tmp)."), "{said}");
    assert_eq!(projects(&home), pairs(&[("shop-copy", 2), ("api", 1), ("shop", 1)]));
}

#[test]
fn a_project_whose_requests_have_no_price_did_not_cost_nothing() {
    let (_dir, home) = home();
    let of = |n, project: &str, cost| Row {
        project: Some(project.to_owned()),
        cost_nanousd: cost,
        ..row(n, "2026-11-24T00:00:00Z")
    };
    let five = Some(5_000_000_000);
    let untold = Row { usage: UsageState::Absent, ..of(4, "quiet", None) };
    store(&home, &[of(1, "shop", five), of(2, "shop", None), of(3, "api", None), untold]);
    let list = says(&home, "project list").unwrap();
    let line = |name: &str| list.lines().find(|line| line.contains(name)).unwrap().to_owned();
    assert!(line("shop").contains("$5.00 + unpriced"), "{list}");
    assert!(line("api").contains("unpriced"), "{list}");
    assert!(line("quiet").contains("unpriced"), "{list}");
    assert!(says(&home, "project show shop").unwrap().contains("$5.00 + unpriced"));
}

#[test]
fn a_directory_whose_name_is_no_text_is_told_in_json_too() {
    use std::os::unix::ffi::OsStrExt;

    use super::directory::{here, tag};
    let (dir, home) = home();
    let odd = dir.path().join(std::ffi::OsStr::from_bytes(b"d\xff"));
    if std::fs::create_dir(&odd).is_err() {
        return; // Apple's file system has no such names.
    }
    let json = |out: &[u8]| serde_json::from_slice::<Value>(out).unwrap();
    let mut out = Vec::new();
    let how = How { dry_run: false, json: true };
    tag(&TagArgs { name: "foo".to_owned(), dir: Some(odd.clone()), how }, &mut out).unwrap();
    assert_eq!(json(&out)["name"], "foo");
    let mut out = Vec::new();
    here(&home, &HereArgs { dir: Some(odd), json: true }, &mut out).unwrap();
    assert_eq!(json(&out)["project"], "foo");
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let (_dir, home) = with_rows();
    for (line, why) in [
        ("rename nobody x", "no request belongs"),
        ("rename shop shop", "already"),
        ("rename shop api", "merge"),
        ("merge shop shop", "itself"),
        ("merge nobody shop", "no request belongs"),
        ("restore shop", "neither renamed nor merged"),
        ("show nobody", "no request belongs"),
        ("retag --to x", "say which"),
        ("retag --to x --since today --until yesterday", "not"),
    ] {
        let error = says(&home, &format!("project {line}")).unwrap_err();
        assert!(error.is::<UsageError>(), "{line}: {error}");
        assert!(error.to_string().contains(why), "{line}: {error}");
    }
    let long = "x".repeat(MAX_NAME + 1);
    assert!(says(&home, &format!("project rename shop {long}")).is_err());
    assert!(says(&home, "project retag --from shop").is_err(), "to whom?");
    assert!(!home.projects_file().exists());
}

#[test]
fn rows_are_given_away_and_back() {
    let (_dir, home) = with_rows();
    let start = projects(&home);
    let retag = "project retag --from shop-copy --to api --since 2026-11-24 --cwd /w/shop-copy";
    let dry = says(&home, &format!("{retag} --dry-run")).unwrap();
    assert!(dry.contains("2 rows would change") && dry.contains("$0.0246"), "{dry}");
    assert_eq!(projects(&home), start);
    // To a name that is shown as another one.
    says(&home, "project rename api backend").unwrap();
    let done: Value =
        serde_json::from_str(&says(&home, &format!("{retag} --json")).unwrap()).unwrap();
    assert_eq!(done["changed"], 2);
    assert_eq!(done["to"], "backend");
    assert_eq!(done["projects"]["shop-copy"]["requests"], 2);
    assert_eq!(projects(&home), pairs(&[("backend", 3), ("shop", 1)]));
    assert!(says(&home, retag).unwrap().contains("0 rows changed"));
    says(&home, "project retag --undo").unwrap();
    says(&home, "project restore api").unwrap();
    assert_eq!(projects(&home), start);
}

#[test]
fn rows_that_are_dated_ahead_are_among_all() {
    let (_dir, home) = home();
    let ahead = row(2, "2027-02-01T00:00:00Z");
    store(&home, &[row(1, "2026-11-24T00:00:00Z"), ahead]);
    let said = |line: &str| says(&home, &format!("project retag {line}")).unwrap();
    assert!(said("--to new --since 1970-01-01 --dry-run").contains("2 rows would change."));
    let until = said("--to new --since 1970-01-01 --until 2026-11-25 --dry-run");
    assert!(until.contains("1 row would change."), "{until}");
    assert!(said("--to new --client claude").contains("2 rows changed."));
    assert!(said("--undo").contains("2 rows changed."));
}

#[test]
fn a_list_of_a_time_without_requests_is_not_told_as_if_there_were_no_projects() {
    let (_dir, home) = home();
    assert_eq!(says(&home, "project list").unwrap(), "No projects yet.\n");
    store(&home, &[row(1, "2026-11-24T00:00:00Z")]);
    let said = says(&home, "project list --since 1h").unwrap();
    assert_eq!(said, "No requests to a model in this range.\n");
    let error = says(&home, "project list --since 2027-05-01").unwrap_err();
    assert!(error.is::<UsageError>(), "{error}");
}

#[test]
fn what_is_given_away_without_a_price_is_not_told_as_nothing() {
    let (_dir, home) = home();
    let of = |n, cost_nanousd, usage| Row {
        project: Some("shop".to_owned()),
        cost_nanousd,
        usage,
        ..row(n, "2026-11-24T00:00:00Z")
    };
    let told = |n| {
        let retag = "project retag --from shop --to api --dry-run";
        let table = says(&home, retag).unwrap();
        assert!(!table.contains("$0.00"), "{n}: {table}");
        let json: Value =
            serde_json::from_str(&says(&home, &format!("{retag} --json")).unwrap()).unwrap();
        (table, json["projects"]["shop"].clone())
    };
    store(&home, &[of(1, None, UsageState::Reported), of(2, None, UsageState::Absent)]);
    let (table, json) = told(1);
    assert!(table.contains("unpriced"), "{table}");
    let sums = (&json["cost_nanousd"], &json["subscription_nanousd"], &json["unpriced"]);
    assert_eq!(sums, (&Value::Null, &Value::Null, &1.into()));
    store(&home, &[of(3, Some(12_300_000), UsageState::Reported)]);
    let (table, json) = told(2);
    assert!(table.contains("$0.0123 + unpriced"), "{table}");
    assert_eq!(json["cost_nanousd"], 12_300_000);
}

#[test]
fn each_condition_of_a_retag_selects_by_its_own_column() {
    let (_dir, home) = home();
    let conditions = ["session", "branch", "client", "run"];
    // Each is `x` in one row, whose project is called after it, and `y` in all others.
    let of = |(n, name): (u128, &str)| {
        let value = |column: &str| Some(if column == name { "x" } else { "y" }.to_owned());
        Row {
            project: Some(name.to_owned()),
            session: value("session"),
            branch: value("branch"),
            client: value("client"),
            run: value("run"),
            ..row(n, "2026-11-24T00:00:00Z")
        }
    };
    let rows: Vec<Row> = (1..).zip(conditions).map(of).collect();
    store(&home, &rows);
    let moved = |line: &str| {
        let said = says(&home, &format!("project retag --to new {line} --dry-run --json"));
        let done: Value = serde_json::from_str(&said.unwrap()).unwrap();
        done["projects"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    for name in conditions {
        assert_eq!(moved(&format!("--{name} x")), [name]);
        let mut others: Vec<_> = conditions.into_iter().filter(|other| *other != name).collect();
        others.sort_unstable();
        assert_eq!(moved(&format!("--{name} y")), others);
    }
    assert_eq!(moved("--session y --branch y --client y"), ["run"], "all of them at once");
}

#[test]
fn a_directory_is_tagged_and_says_so() {
    let (dir, home) = with_rows();
    let work = dir.path().canonicalize().unwrap().join("work");
    std::fs::create_dir_all(work.join("deep")).unwrap();
    let tag = format!("project tag shop-copy --dir {}", work.display());
    assert!(says(&home, &format!("{tag} --dry-run")).unwrap().contains("would say"));
    assert!(!work.join(".halton.toml").exists());
    assert!(says(&home, &tag).unwrap().contains("says \"shop-copy\" now"));
    assert!(says(&home, &tag).unwrap().contains("already"));
    says(&home, "project merge shop-copy shop").unwrap();
    let here = format!("project here {} --json", work.join("deep").display());
    let here: Value = serde_json::from_str(&says(&home, &here).unwrap()).unwrap();
    let said = ["project", "shown_as", "source", "file"].map(|field| here[field].as_str());
    let file = work.join(".halton.toml");
    assert_eq!(said, [Some("shop-copy"), Some("shop"), Some("file"), file.to_str()]);
    std::fs::write(&file, "[project").unwrap();
    let broken = says(&home, &format!("project here {}", work.display())).unwrap();
    assert!(
        broken.contains("Problem") && broken.contains(".halton.toml: line 1: expected"),
        "{broken}"
    );
    assert!(says(&home, &tag).unwrap_err().is::<UsageError>());
}
