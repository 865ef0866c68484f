//! A name for the program that a process runs: what its user would call it.

use std::path::Path;

use super::{cleaned, file_name};

const INTERPRETERS: [&str; 16] = [
    "node", "nodejs", "python", "pypy", "ruby", "perl", "php", "java", "bun", "deno", "sh", "bash",
    "dash", "zsh", "uv", "electron",
];
/// Script names that say nothing of the program.
const GENERIC: [&str; 10] =
    ["index", "main", "cli", "__main__", "start", "app", "server", "run", "bin", "cli-bundle"];

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Program {
    pub name: String,
    /// Nothing but the interpreter's name could be found.
    pub interpreter: bool,
}

pub(super) fn name(exe: Option<&Path>, arguments: &[String]) -> Option<Program> {
    let own = |name| Some(Program { name, interpreter: false });
    let zero = arguments.first().map(Path::new).and_then(file_name);
    let Some(exe) = exe else { return zero.and_then(own) };
    let base = file_name(exe)?;
    if is_version(&base) {
        // `…/claude/versions/2.1.330`: the link that was called has the name.
        let called = zero.filter(|n| !is_version(n));
        let folder = || exe.ancestors().skip(1).filter_map(file_name).find(|n| n != "versions");
        return called.or_else(folder).and_then(own);
    }
    if !is_interpreter(&base) {
        return own(base);
    }
    match script(arguments, is_python(&base)) {
        Some(name) => own(name),
        None => Some(Program { name: base, interpreter: true }),
    }
}

fn is_version(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// `python3.12`, `node22`, `java`.
fn is_interpreter(base: &str) -> bool {
    let stem = base.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    INTERPRETERS.contains(&stem)
}

fn is_python(base: &str) -> bool {
    base.starts_with("python") || base.starts_with("pypy")
}

/// What an interpreter was told to run. Of options with a value of their own only some are told apart:
/// a wrong guess there ends in the interpreter's name or the value's, never in a failure.
fn script(arguments: &[String], python: bool) -> Option<String> {
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "-m" | "-jar" => {
                let module = rest.next()?;
                let module = module.strip_suffix(".__main__").unwrap_or(module);
                return file_name(Path::new(module.strip_suffix(".jar").unwrap_or(module)));
            }
            // Code on the command line has no name.
            "-c" | "-e" | "-p" | "-" | "--eval" | "--print" => return None,
            // Of other interpreters they have no value.
            "-W" | "-X" if python => {
                rest.next();
            }
            "run" | "x" => {}
            option if option.starts_with('-') => {}
            path => return script_name(Path::new(path)),
        }
    }
    None
}

fn script_name(path: &Path) -> Option<String> {
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned())?;
    if !GENERIC.contains(&stem.as_str()) {
        return cleaned(stem);
    }
    // `…/node_modules/@google/gemini-cli/dist/index.js` is gemini-cli.
    let parts: Vec<_> = path.iter().map(|p| p.to_string_lossy()).collect();
    let package = parts.iter().rposition(|p| p == "node_modules" || p == "site-packages");
    let folder = match package {
        Some(at) => parts.get(at + 1).filter(|p| !p.starts_with('@')).or(parts.get(at + 2)),
        None => parts.iter().rev().skip(1).find(|p| {
            !matches!(&***p, "dist" | "build" | "bin" | "src" | "lib" | "out" | "." | ".." | "/")
        }),
    };
    folder.map(|f| f.clone().into_owned()).and_then(cleaned).or_else(|| cleaned(stem))
}
