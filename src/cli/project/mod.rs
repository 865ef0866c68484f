//! `halton-meter project`: what projects there are, what they are called, and whose requests are whose.

mod directory;
mod names;
mod retag;
mod show;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::ZonedDateTime;

use super::output::{Style, UsageError, finish};
use super::range::RangeArgs;
use super::{Context, Exit, Failure, client};
use crate::home::Home;
use crate::meter::attribution::{MAX_NAME, cleaned};
use crate::meter::ledger::Ledger;
use crate::meter::projects;

#[derive(Debug, Subcommand)]
pub enum ProjectCommand {
    /// The projects that there are: requests, cost, when last.
    List(ListArgs),
    /// One project: its sums, how and where its requests were found, its recorded names.
    Show(ShowArgs),
    /// Show a project under another name, for what was and what will be.
    Rename(RenameArgs),
    /// Show several projects as one.
    Merge(MergeArgs),
    /// Take renames and merges back, all of them: the names that were recorded are shown again.
    Restore(RestoreArgs),
    /// Give requests that were attributed wrongly to another project.
    Retag(retag::RetagArgs),
    /// Name a directory's project: writes its .halton.toml.
    Tag(TagArgs),
    /// Which project a directory belongs to, and why.
    Here(HereArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  halton-meter project list
  halton-meter project list --since 30d --json")]
pub struct ListArgs {
    #[command(flatten)]
    range: RangeArgs,
    /// One JSON document (docs/json.md)
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  halton-meter project show my-app
  halton-meter project show my-app --since 7d")]
pub struct ShowArgs {
    name: String,
    #[command(flatten)]
    range: RangeArgs,
    /// One JSON document (docs/json.md)
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  halton-meter project rename shop-2 shop --dry-run
  halton-meter project rename shop-2 shop
No row is changed: reports, budgets and lists show the new name, for later requests too.
`project restore` takes it back.")]
pub struct RenameArgs {
    old: String,
    new: String,
    #[command(flatten)]
    how: How,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  halton-meter project merge shop-copy shop-old shop     all three are shop
  halton-meter project merge shop-copy shop --dry-run
No row is changed; `project restore shop-copy` makes it a project of its own again.")]
pub struct MergeArgs {
    /// The projects that become part of INTO
    #[arg(required = true, num_args = 1.., value_name = "FROM")]
    from: Vec<String>,
    into: String,
    #[command(flatten)]
    how: How,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  halton-meter project restore shop-copy    only this one is itself again
  halton-meter project restore shop         all that was merged into shop, or renamed to it
After several renames it is the first name that comes back; `project rename` goes one step back.")]
pub struct RestoreArgs {
    /// The name that was recorded, or the one that it is shown under
    name: String,
    #[command(flatten)]
    how: How,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  halton-meter project tag shop
  halton-meter project tag shop --dir ~/src/storefront
Everything in the directory and below belongs to that project from now on; HALTON_PROJECT and
`run --project` still win. See docs/projects.md.")]
pub struct TagArgs {
    name: String,
    /// Default: the working directory
    #[arg(long)]
    dir: Option<PathBuf>,
    #[command(flatten)]
    how: How,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  halton-meter project here
  halton-meter project here ~/src/storefront --json")]
pub struct HereArgs {
    /// Default: the working directory
    dir: Option<PathBuf>,
    /// One JSON document (docs/json.md)
    #[arg(long)]
    json: bool,
}

impl ProjectCommand {
    /// What it changes depends on what projects are shown as: without that it refuses.
    pub fn changes_by_names(&self) -> bool {
        match self {
            Self::Rename(_) | Self::Merge(_) | Self::Restore(_) | Self::Retag(_) => true,
            Self::List(_) | Self::Show(_) | Self::Tag(_) | Self::Here(_) => false,
        }
    }

    fn shows_sums(&self) -> bool {
        match self {
            Self::List(_) | Self::Show(_) => true,
            Self::Rename(_)
            | Self::Merge(_)
            | Self::Restore(_)
            | Self::Retag(_)
            | Self::Tag(_)
            | Self::Here(_) => false,
        }
    }
}

/// What each command that changes something knows.
#[derive(Args, Clone, Copy, Debug, Default)]
struct How {
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    /// One JSON document (docs/json.md)
    #[arg(long)]
    json: bool,
}

pub fn run(ctx: &Context, command: &ProjectCommand, out: &mut dyn Write) -> Result<Exit, Failure> {
    if command.shows_sums() {
        client::settle_ledger(ctx);
    }
    let style = Style::detect(ctx.color);
    finish(act(&ctx.home, command, style, &ZonedDateTime::now(), out))
}

fn act(
    home: &Home,
    command: &ProjectCommand,
    style: Style,
    now: &ZonedDateTime,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    if command.changes_by_names() {
        projects::read(&home.projects_file())?;
    }
    match command {
        ProjectCommand::List(args) => show::list(home, args, style, now, out),
        ProjectCommand::Show(args) => show::show(home, args, now, out),
        ProjectCommand::Rename(args) => names::rename(home, args, out),
        ProjectCommand::Merge(args) => names::merge(home, args, out),
        ProjectCommand::Restore(args) => names::restore(home, args, out),
        ProjectCommand::Retag(args) => retag::run(home, args, style, now, out),
        ProjectCommand::Tag(args) => directory::tag(args, out),
        ProjectCommand::Here(args) => directory::here(home, args, out),
    }
}

/// A name that a project may have.
fn name(text: &str) -> Result<String, UsageError> {
    cleaned(text).filter(|name| name == text.trim()).ok_or_else(|| {
        UsageError(format!(
            "{text:?} is no name for a project: at most {MAX_NAME} characters, none of them a control \
             character"
        ))
    })
}

/// The name that an existing project is shown under.
fn existing(ledger: &Ledger, text: &str) -> anyhow::Result<String> {
    let name = ledger.shown_project(text);
    if ledger.project_names()?.contains(name) {
        return Ok(name.to_owned());
    }
    let known = "`halton-meter project list` shows those that there are";
    Err(UsageError(format!("no request belongs to a project {text:?}; {known}")).into())
}

#[cfg(test)]
mod tests;
