//! A name for the program that a process runs: what its user would call it.

use std::path::{Path, PathBuf};

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

/// How far up the program is looked for that a worker works for: it may be one of a worker's.
const MAX_ANCESTORS: usize = 8;

/// Python's `multiprocessing` starts its workers, and what forks them, with code of its own. What follows it
/// is never looked at.
const WORKERS: [&str; 2] = [
    "from multiprocessing.spawn import spawn_main; spawn_main(",
    "from multiprocessing.forkserver import main; main(",
];
/// joblib's, as a module.
const WORKER_MODULE: &str = "loky.backend.popen_loky_posix";

/// Executable and command line.
pub(super) type Line = (Option<PathBuf>, Vec<String>);

/// The same for a process that may be a worker of another one's: that one has the name. `ancestors`: the
/// nearest first.
pub(super) fn name_among(own: &Line, ancestors: impl Iterator<Item = Line>) -> Option<Program> {
    let named = |(exe, arguments): &Line| name(exe.as_deref(), arguments);
    if !is_worker(own) {
        return named(own);
    }
    // Who is no Python has not started it so: it was left behind.
    let told = ancestors.take(MAX_ANCESTORS).find(|line| !is_worker(line)).filter(is_python);
    told.as_ref().and_then(named).or_else(|| interpreter(own))
}

fn is_python((exe, _): &Line) -> bool {
    let base = exe.as_deref().and_then(base_name);
    base.and_then(|base| Language::of(&base)) == Some(Language::Python)
}

fn is_worker(line: &Line) -> bool {
    let code = |pair: &[String]| match pair {
        [option, code] => {
            option.starts_with('-')
                && option.ends_with('c')
                && WORKERS.iter().any(|worker| code.starts_with(worker))
        }
        _ => false,
    };
    is_python(line)
        && match Language::Python.told(&line.1) {
            None => line.1.windows(2).any(code),
            Some(Told::Module(name)) => name.ends_with(WORKER_MODULE),
            Some(Told::Script(_)) => false,
        }
}

fn interpreter((exe, _): &Line) -> Option<Program> {
    Some(Program { name: base_name(exe.as_deref()?)?, interpreter: true })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        let arguments: Vec<String> = text.split('|').map(str::to_owned).collect();
        (Some(PathBuf::from(&arguments[0])), arguments)
    }

    const SPAWNED: &str = "/usr/bin/python3.12|-B|-c|from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=5, pipe_handle=7)|--multiprocessing-fork";
    const SERVER: &str = "/usr/bin/python3.14|-c|from multiprocessing.forkserver import main; main(4, 5, ['__main__'], **{'key': 'sk-proj-1'})";
    const LOKY: &str =
        "/usr/bin/python3|-m|joblib.externals.loky.backend.popen_loky_posix|--process-name|x";

    fn named(own: &str, ancestors: &[&str]) -> (String, bool) {
        let found = name_among(&line(own), ancestors.iter().map(|text| line(text))).unwrap();
        (found.name, found.interpreter)
    }

    #[test]
    fn a_worker_has_the_name_of_the_program_that_it_works_for() {
        let agent = "/usr/bin/python3.12|/w/agent.py|--workers|4";
        let module = "/usr/bin/python3|-m|acme.pipeline";
        for (own, ancestors, expected) in [
            (SPAWNED, &[agent, "/bin/bash"][..], "agent"),
            (SPAWNED, &[module], "acme.pipeline"),
            // Forked by the server that the program has started.
            (SERVER, &[SERVER, agent], "agent"),
            // A worker of a worker's.
            (SPAWNED, &[SPAWNED, agent], "agent"),
            (LOKY, &[agent], "agent"),
        ] {
            assert_eq!(named(own, ancestors), (expected.to_owned(), false), "{own}");
        }
        assert_eq!(named(agent, &[module]), ("agent".to_owned(), false), "no worker");
    }

    #[test]
    fn nothing_of_its_code_nor_who_came_after_the_program_names_a_worker() {
        let code = "/usr/bin/python3|-c|key = 'sk-proj-1'";
        for (own, ancestors) in [
            (SPAWNED, &[][..]),
            (SPAWNED, &["/usr/lib/systemd/systemd|--user"]),
            (SPAWNED, &["/bin/bash"]),
            (SERVER, &[]),
            (code, &["/usr/bin/python3|/w/agent.py"]),
        ] {
            let (name, interpreter) = named(own, ancestors);
            assert!(interpreter && name.starts_with("python3"), "{own}: {name}");
        }
        // Nor the code of its parent.
        assert_eq!(named(SPAWNED, &[code]), ("python3".to_owned(), true));
    }
}
