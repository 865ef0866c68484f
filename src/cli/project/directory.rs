//! `project tag` and `project here`: what a directory says of its project.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use toml::de::DeTable;

use super::super::output::{UsageError, harmless, write_json};
use super::{HereArgs, TagArgs, name};
use crate::home::Home;
use crate::meter::attribution::{FILE_NAME, Method, name_in, of_directory};
use crate::meter::ledger::Ledger;

#[derive(Serialize)]
struct Here {
    directory: String,
    project: Option<String>,
    /// What the project is shown as.
    shown_as: Option<String>,
    source: Option<&'static str>,
    file: Option<String>,
    branch: Option<String>,
    problem: Option<String>,
}

pub(super) fn here(home: &Home, args: &HereArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let directory = existing(args.dir.as_deref())?;
    let place = of_directory(&directory);
    let explicit = std::env::var("HALTON_PROJECT").ok().filter(|_| args.dir.is_none());
    let explicit = explicit.and_then(crate::meter::attribution::cleaned);
    let found = explicit.map(|name| (name, Method::Explicit)).or(place.project);
    let (project, source) = found.unzip();
    let ledger = Ledger::open(home)?;
    let shown_as = project.as_deref().map(|name| ledger.shown_project(name).to_owned());
    let here = Here {
        directory: directory.to_string_lossy().into_owned(),
        shown_as: shown_as.filter(|shown| project.as_ref() != Some(shown)),
        project,
        source: source.map(Method::as_str),
        file: place
            .file
            .filter(|_| source == Some(Method::File))
            .map(|file| file.to_string_lossy().into_owned()),
        branch: place.branch,
        problem: place.problem.map(|p| format!("{}: {}", p.file.display(), p.why)),
    };
    if args.json {
        return write_json(out, &here);
    }
    let text = harmless;
    match (&here.project, source) {
        (Some(project), Some(source)) => {
            writeln!(out, "Project  {}", text(project))?;
            writeln!(out, "Found by {}", why(source, here.file.as_deref()))?;
        }
        (Some(_) | None, _) => {
            writeln!(out, "No project: requests from here belong to the program that makes them.")?;
        }
    }
    if let Some(shown) = &here.shown_as {
        writeln!(out, "Shown as {}", text(shown))?;
    }
    if let Some(branch) = &here.branch {
        writeln!(out, "Branch   {}", text(branch))?;
    }
    if let Some(problem) = &here.problem {
        writeln!(out, "Problem  {}", text(problem))?;
    }
    Ok(())
}

fn why(source: Method, file: Option<&str>) -> String {
    match source {
        Method::Explicit => "HALTON_PROJECT".to_owned(),
        Method::File => file.map_or_else(String::new, harmless),
        Method::Git => "the git repository".to_owned(),
        Method::Editor => "an editor's folder".to_owned(),
        Method::Cwd => "the directory's name".to_owned(),
        Method::Program => "the program".to_owned(),
    }
}

pub(super) fn tag(args: &TagArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let name = name(&args.name)?;
    let file = existing(args.dir.as_deref())?.join(FILE_NAME);
    let refuse = |why: &str| UsageError(format!("{}: {why}", file.display()));
    let before = name_in(&file).map_err(|why| refuse(&why))?;
    let changes = before.as_ref() != Some(&name);
    if changes {
        let text = if file.exists() { fs::read_to_string(&file)? } else { String::new() };
        let edited = with_name(&text, &name)
            .ok_or_else(|| refuse("it has a form that is not changed here; edit it yourself"))?;
        if !args.how.dry_run {
            fs::write(&file, edited)?;
        }
    }
    if args.how.json {
        return write_json(
            out,
            &serde_json::json!({
                "dry_run": args.how.dry_run, "file": file.to_string_lossy(), "before": before, "name": name,
            }),
        );
    }
    let file = harmless(&file.to_string_lossy());
    match (changes, args.how.dry_run) {
        (false, _) => writeln!(out, "{file} says so already.")?,
        (true, true) => writeln!(out, "{file} would say {name:?}.")?,
        (true, false) => writeln!(out, "{file} says {name:?} now: for what begins from here on.")?,
    }
    Ok(())
}

/// `None`: that can't be done without touching more.
fn with_name(text: &str, name: &str) -> Option<String> {
    let value = toml::Value::from(name).to_string();
    let table = DeTable::parse(text).ok()?.into_inner();
    let project = table.iter().find(|(key, _)| key.get_ref() == "project").map(|(_, value)| value);
    let Some(project) = project else {
        let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        return Some(format!("{text}{gap}[project]\nname = {value}\n"));
    };
    let keys = project.get_ref().as_table()?;
    let span = keys.iter().find(|(key, _)| key.get_ref() == "name").map(|(_, old)| old.span())?;
    Some(format!("{}{value}{}", text.get(..span.start)?, text.get(span.end..)?))
}

fn existing(dir: Option<&Path>) -> anyhow::Result<PathBuf> {
    let dir = dir.unwrap_or(Path::new("."));
    dir.canonicalize().map_err(|e| UsageError(format!("{}: {e}", dir.display())).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_put_where_it_belongs() {
        let named = |text: &str| with_name(text, "a \"b\"");
        let said = |text: &str| {
            let text = named(text).unwrap();
            let parsed: toml::Table = toml::from_str(&text).unwrap();
            assert_eq!(parsed["project"]["name"].as_str(), Some("a \"b\""), "{text}");
            text
        };
        said("");
        assert!(said("# mine\n[project]\nname = 'old' # why\nx = 1\n").contains("# why\nx = 1"));
        assert!(said("[other]\nx = 1").starts_with("[other]\nx = 1\n[project]"));
        said("project = { name = 'old' }");
        assert_eq!(named("[project]\nx = 1\n"), None);
        assert_eq!(named("project = 1"), None);
    }
}
