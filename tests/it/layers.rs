//! The rules between folders (docs/architecture.md), read off the sources.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    rust_files(&root().join("src").join(dir))
}

fn rust_files(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {}", dir.display());
    found
}

/// Lines of code, without comments, that hold one of `words`.
fn uses(files: &[(PathBuf, String)], words: &[&str]) -> Vec<String> {
    files
        .iter()
        .flat_map(|(path, text)| text.lines().map(move |line| (path, line)))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .filter(|(_, line)| words.iter().any(|w| line.contains(w)))
        .map(|(path, line)| format!("{}: {}", path.display(), line.trim()))
        .collect()
}

#[test]
fn the_edge_has_no_tls_no_sqlite_no_http_client() {
    let (own, others): (Vec<_>, Vec<_>) =
        sources("edge").into_iter().partition(|(path, _)| path.ends_with("edge/secure.rs"));
    let never = ["rusqlite", "ureq", "actix_web", "rcgen"];
    let others =
        uses(&others, &[&never[..], &["rustls", "crate::meter::", "crate::selftest"]].concat());
    assert_eq!(others, Vec::<String>::new());
    // ADR 0026: a client of TLS, never its server, and nothing of the ledger.
    let server = ["TlsAcceptor", "ServerConfig", "meter::ca", "meter::ledger", "meter::tap"];
    assert_eq!(own.len(), 1);
    assert_eq!(uses(&own, &[&never[..], &server].concat()), Vec::<String>::new());
}

/// What depends on the configuration, it does not depend on.
#[test]
fn the_configuration_knows_none_of_its_readers() {
    let others = ["actors", "cli", "daemon", "edge", "meter", "root", "selftest", "watchdog"];
    let words: Vec<_> = others.iter().map(|name| format!("crate::{name}::")).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let found = uses(&sources("config"), &words);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn followers_and_surfaces_know_no_runtime_and_no_clock() {
    let sans_io = [
        "http.rs",
        "http1",
        "http2",
        "websocket",
        "sse.rs",
        "eventstream",
        "multipart.rs",
        "coding",
        "connect_rpc",
        "surface",
        "exchange",
        "price",
        "charge.rs",
        "quota.rs",
        "usage.rs",
        "row.rs",
    ];
    let meter = root().join("src/meter");
    let mut files = sources("meter");
    // Tests may drive them with a real peer.
    files.retain(|(path, _)| !path.iter().any(|part| part == "tests" || part == "tests.rs"));
    for name in sans_io {
        let its: Vec<_> = files
            .iter()
            .filter(|(path, _)| {
                let mut parts = path.strip_prefix(&meter).unwrap().iter();
                parts.any(|part| part.to_string_lossy().starts_with(name))
            })
            .cloned()
            .collect();
        assert!(!its.is_empty(), "no {name} in meter");
        let found =
            uses(&its, &["tokio::", "actix", "Instant::now", "SystemTime::now", "Timestamp::now"]);
        assert_eq!(found, Vec::<String>::new());
    }
}

/// Those of `src` that hold one of `words` outside comments, without its own tests.
fn files_that_use(words: &[&str]) -> Vec<String> {
    let mut found: Vec<_> = sources("")
        .into_iter()
        .filter(|(path, _)| !path.to_string_lossy().ends_with("tests.rs"))
        .filter_map(|(path, text)| {
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let path = path.strip_prefix(root()).unwrap().display().to_string();
            (!uses(&[(PathBuf::new(), code.to_owned())], words).is_empty()).then_some(path)
        })
        .collect();
    found.sort();
    found
}

#[test]
fn only_a_plan_changes_the_users_machine() {
    assert_eq!(files_that_use(&["setup::execute", "setup::recover"]), ["src/cli/apply.rs"]);
    // One step at a time, without a way back: docs/architecture.md says of what.
    let alone = ["src/actors/system_proxy.rs", "src/cli/services.rs"];
    assert_eq!(files_that_use(&["setup::perform"]), alone);
    // What asks the system; `session` sets variables of a login that ends, `system_proxy` switches off for the
    // watchdog and `reset-proxy`.
    let calls = [
        "src/linux/systemd.rs",
        "src/macos/launchd.rs",
        "src/macos/session.rs",
        "src/macos/system_proxy.rs",
        "src/macos/trust_store.rs",
    ];
    assert_eq!(files_that_use(&["setup::call"]), calls);
    // None of them goes by a shorter name, which the lines above would not find.
    for (path, text) in sources("") {
        let imports =
            text.split(';').filter(|part| part.trim_start().starts_with("use crate::setup"));
        let names: Vec<_> =
            imports.flat_map(|part| part.split(|c: char| !c.is_alphabetic())).collect();
        for name in ["execute", "recover", "perform", "call"] {
            assert!(!names.contains(&name), "{}: {name}", path.display());
        }
    }
}

/// CONTRIBUTING.md names the same.
#[test]
fn unsafe_code_stays_where_it_is() {
    let known = [
        "src/inherit.rs",
        "src/linux/resident.rs",
        "src/macos/activate.rs",
        "src/macos/libproc.rs",
        "src/platform.rs",
    ];
    let words = ["unsafe_code", "unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"];
    assert_eq!(files_that_use(&words), known);
    let said = std::fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    for file in known {
        assert!(said.contains(&format!("`{file}`")), "{file}");
    }
}

/// Only what that function says reaches the end of tools/test.sh.
#[test]
fn what_is_not_checked_is_said_by_one_function() {
    let mut files = rust_files(&root().join("tests"));
    files.extend(sources(""));
    // It itself; what reads a script's words; these lines.
    for known in ["support/programs.rs", "it/systemd.rs", "it/tools.rs", "it/layers.rs"] {
        files.retain(|(path, _)| !path.ends_with(Path::new("tests").join(known)));
    }
    assert_eq!(uses(&files, &["NOT CHECKED"]), Vec::<String>::new());
}

#[test]
fn platform_differences_stay_in_their_folders() {
    let root = root().join("src");
    let files: Vec<_> = sources("")
        .into_iter()
        .filter(|(path, _)| {
            let path = path.strip_prefix(&root).unwrap();
            !(path.starts_with("linux")
                || path.starts_with("macos")
                || path.starts_with("platform")
                || path == Path::new("platform.rs")
                || path == Path::new("lib.rs"))
        })
        .collect();
    assert_eq!(uses(&files, &["target_os"]), Vec::<String>::new());
}

#[test]
fn no_file_outgrows_its_reader() {
    let long: Vec<_> = sources("")
        .into_iter()
        .map(|(path, text)| (text.lines().count(), path))
        .filter(|(lines, _)| *lines > 500)
        .collect();
    assert_eq!(long, Vec::new());
}

/// The names of the functions in a module, its own tests and its files below included.
fn functions(all: &[(PathBuf, String)], module: &Path) -> Vec<String> {
    let outer = if module.ends_with("tests") { module.parent().unwrap() } else { module };
    let its = |path: &Path| {
        let path = path.with_extension("");
        path.starts_with(module) || path == outer || path == outer.join("mod")
    };
    let code = all.iter().filter(|(path, _)| its(path)).flat_map(|(_, text)| text.lines());
    let names = code.filter_map(|line| line.split_once("fn ")?.1.split('(').next());
    names.map(str::to_owned).collect()
}

/// A failure whose test is renamed or gone has none.
#[test]
fn every_test_that_fail_open_names_is_there() {
    let page = std::fs::read_to_string(root().join("docs/fail-open.md")).unwrap();
    let table = page.split("\n## ").find(|part| part.starts_with("What each failure does"));
    let mut all = rust_files(&root().join("tests/it"));
    all.extend(sources(""));
    let (mut seen, mut wrong) = (0, Vec::new());
    for row in table.unwrap().lines().filter(|line| line.starts_with('|')).skip(2) {
        let cell = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let mut module = root().join("tests/it/fail_open");
        for name in cell.split('`').skip(1).step_by(2) {
            seen += 1;
            if name.ends_with(".rs") {
                if !root().join(name).is_file() {
                    wrong.push(name);
                }
                continue;
            }
            // `…` stands for the rest, and before the name for the module of the name before.
            let (path, function) = name.rsplit_once("::").unwrap_or(("", name));
            if !path.is_empty() {
                let top = path.split("::").next().unwrap();
                let integration = root().join("tests/it").join(top).with_extension("rs").is_file();
                let folder = if integration && !path.contains("::") { "tests/it" } else { "src" };
                module = root().join(folder).join(path.replace("::", "/"));
            } else if !name.starts_with('…') {
                module = root().join("tests/it/fail_open");
            }
            let named = |known: &String| match function.trim_start_matches('…') {
                part if part.len() < function.len() => known.contains(part.trim_end_matches('…')),
                part => {
                    part.strip_suffix('…').map_or(known == part, |part| known.starts_with(part))
                }
            };
            let its = functions(&all, &module);
            let whole = function == "tests" && !functions(&all, &module.join("tests")).is_empty();
            if !whole && !its.iter().any(named) {
                wrong.push(name);
            }
        }
    }
    assert!(seen > 30, "{seen} names read");
    assert_eq!(wrong, Vec::<&str>::new());
}
