//! `completions` and `man`: both made from the command line's own definition, so they can't be wrong.

use std::io::Write;

use clap::{Args, Command};

use super::{Exit, Failure};

const NAME: &str = "halton-meter";

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    halton-meter completions bash > ~/.local/share/bash-completion/completions/halton-meter\n  \
    halton-meter completions zsh > \"${fpath[1]}/_halton-meter\"\n  \
    halton-meter completions fish > ~/.config/fish/completions/halton-meter.fish")]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    halton-meter man | man -l -\n  \
    halton-meter man ca trust > halton-meter-ca-trust.1")]
pub struct ManArgs {
    /// Which command; the whole program if not given.
    command: Vec<String>,
}

pub fn completions(
    args: &CompletionsArgs,
    command: &Command,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    // clap_complete offers hidden commands too.
    let shown = command.get_subcommands().filter(|c| !c.is_hide_set()).cloned();
    let mut command = Command::new(NAME).args(command.get_arguments().cloned()).subcommands(shown);
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, NAME, &mut text);
    out.write_all(&text)?;
    Ok(Exit::OK)
}

pub fn man(args: &ManArgs, command: Command, out: &mut impl Write) -> Result<Exit, Failure> {
    // Options that each command takes would be on each page.
    let mut command = command.mut_args(|arg| arg.global(false));
    command.build();
    let mut page = &command;
    for name in &args.command {
        page = page.find_subcommand(name).filter(|c| has_a_page(c)).ok_or_else(|| {
            Failure::new(Exit::USAGE, format!("no command {}", args.command.join(" ")))
                .hint("`halton-meter --help` lists them")
        })?;
    }
    clap_mangen::Man::new(page.clone()).render(out)?;
    Ok(Exit::OK)
}

/// Not what only we start ourselves; but `edge`, which is that too, for its `stop`.
fn has_a_page(command: &Command) -> bool {
    !command.is_hide_set() || command.get_subcommands().any(|c| !c.is_hide_set())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, ValueEnum};

    use super::*;
    use crate::cli::Cli;

    fn page(names: &[&str]) -> Result<String, Failure> {
        let args = ManArgs { command: names.iter().map(|n| (*n).to_owned()).collect() };
        let mut out = Vec::new();
        man(&args, Cli::command(), &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn names(command: &Command, path: &[&str], all: &mut Vec<Vec<String>>) {
        for sub in command.get_subcommands().filter(|c| has_a_page(c)) {
            let path = [path, &[sub.get_name()]].concat();
            all.push(path.iter().map(|n| (*n).to_owned()).collect());
            names(sub, &path, all);
        }
    }

    #[test]
    fn every_command_has_a_page_of_its_own_name() {
        let mut all = Vec::new();
        names(&Cli::command(), &[], &mut all);
        assert!(all.len() > 20 && all.contains(&["edge", "stop"].map(String::from).to_vec()));
        for path in all {
            let path: Vec<_> = path.iter().map(String::as_str).collect();
            let text = page(&path).unwrap();
            let name = format!("halton-meter-{}", path.join("-")).replace('-', "\\-");
            assert!(text.contains(".SH SYNOPSIS") && text.contains(&name), "{path:?}: {text}");
        }
        let whole = page(&[]).unwrap();
        assert!(whole.contains("report") && !whole.contains("preflight"), "{whole}");
        assert!(
            whole.contains("halton\\-meter edge stop") || whole.contains("halton-meter edge stop")
        );
    }

    #[test]
    fn every_command_has_examples_and_says_what_its_json_is() {
        fn look(command: &Command) {
            let name = command.get_name();
            let groups = command.get_subcommands().any(|c| !c.is_hide_set());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let shown = help.split_once("Examples:\n").map(|(_, examples)| examples);
            assert!(groups || shown.is_some_and(|text| text.contains(name)), "{name}: {help}");
            for arg in command.get_arguments().filter(|arg| arg.get_long() == Some("json")) {
                assert!(arg.get_help().is_some(), "{name} --json");
            }
            command.get_subcommands().filter(|c| !c.is_hide_set()).for_each(look);
        }
        look(&Cli::command());
    }

    #[test]
    fn what_is_no_command_is_said() {
        assert_eq!(page(&["nothing"]).unwrap_err().exit, Exit::USAGE);
        assert_eq!(page(&["supervise"]).unwrap_err().exit, Exit::USAGE, "hidden");
    }

    #[test]
    fn every_shell_completes_every_command() {
        for shell in clap_complete::Shell::value_variants() {
            let mut out = Vec::new();
            completions(&CompletionsArgs { shell: *shell }, &Cli::command(), &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            for name in ["run", "report", "reset-proxy", "untrust"] {
                assert!(text.contains(name), "{shell}: {name}");
            }
            assert!(!text.contains("preflight"), "{shell}: hidden commands");
        }
    }
}
