//! A name for the program that a process runs: what its user would call it.

use std::path::Path;

use super::interpreter::{Language, Told};
use super::{cleaned, file_name};

/// Script names that say nothing of the program.
const GENERIC: [&str; 10] =
    ["index", "main", "cli", "__main__", "start", "app", "server", "run", "bin", "cli-bundle"];

/// How scripts end.
const ENDINGS: [&str; 14] =
    ["py", "pyw", "js", "mjs", "cjs", "ts", "mts", "cts", "jsx", "tsx", "rb", "pl", "php", "sh"];

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Program {
    pub name: String,
    /// Nothing but the interpreter's name could be found.
    pub interpreter: bool,
}

pub(super) fn name(exe: Option<&Path>, arguments: &[String]) -> Option<Program> {
    let own = |name| Some(Program { name, interpreter: false });
    // A process may have written anything there.
    let zero = arguments.first().map(Path::new).and_then(base_name).filter(|n| is_name(n));
    let Some(exe) = exe else { return zero.and_then(own) };
    let base = base_name(exe)?;
    if is_version(&base) {
        // `…/claude/versions/2.1.330`: the link that was called has the name.
        let called = zero.filter(|n| !is_version(n));
        let folder = || exe.ancestors().skip(1).filter_map(file_name).find(|n| n != "versions");
        return called.or_else(folder).and_then(own);
    }
    let Some(language) = Language::of(&base) else { return own(base) };
    let told = language.told(arguments).and_then(|told| match told {
        Told::Script(path) => script_name(path),
        Told::Module(name) => module_name(name),
    });
    match told.or_else(|| title(zero, arguments)) {
        Some(name) => own(name),
        None => Some(Program { name: base, interpreter: true }),
    }
}

/// Of some programs npm brings a `bun.exe` to every system.
fn base_name(path: &Path) -> Option<String> {
    let name = file_name(path)?;
    Some(name.strip_suffix(".exe").map(str::to_owned).unwrap_or(name))
}

/// What a program calls itself (`process.title = "pi"`): it is written over the command line, of which
/// nothing else is left.
fn title(zero: Option<String>, arguments: &[String]) -> Option<String> {
    let rest = arguments.get(1..).filter(|rest| !rest.is_empty())?;
    zero.filter(|name| rest.iter().all(String::is_empty) && Language::of(name).is_none())
}

fn is_version(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// `aider.__main__`, `/opt/tool.jar`; of Java's `acme/acme.Agent` the module.
fn module_name(name: &str) -> Option<String> {
    let name = name.strip_suffix(".__main__").unwrap_or(name);
    let name = match name.strip_suffix(".jar") {
        Some(jar) => file_name(Path::new(jar))?,
        None => cleaned(name.split('/').next()?)?,
    };
    Some(name).filter(|name| is_name(name))
}

/// If a command line is ever read wrongly, code on it is still no name.
fn is_code(text: &str) -> bool {
    text.chars().any(|c| c.is_control() || ";\"`=".contains(c))
}

fn is_name(text: &str) -> bool {
    !is_code(text) && !text.contains(|c: char| c.is_whitespace() || "()'".contains(c))
}

/// `/dev/fd/63` (a shell's `<(…)`), `/dev/stdin`, `/proc/self/fd/3`: nobody's name.
fn is_descriptor(path: &Path) -> bool {
    (path.starts_with("/dev") && !path.starts_with("/dev/shm"))
        || (path.starts_with("/proc") && path.iter().any(|part| part == "fd"))
}

fn script_name(path: &str) -> Option<String> {
    // Folders may have blanks and brackets in their names.
    let path = Some(path).filter(|path| !is_code(path)).map(Path::new)?;
    if is_descriptor(path) {
        return None;
    }
    // And so may scripts, blanks at least; without a language's ending that could be code.
    let words = path.extension().and_then(|e| e.to_str()).is_some_and(|e| ENDINGS.contains(&e));
    let named = |name: &String| is_name(name) || (words && is_name(&name.replace(' ', "_")));
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).filter(named)?;
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
