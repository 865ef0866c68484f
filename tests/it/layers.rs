//! The rules between folders (docs/architecture.md), read off the sources.

use std::path::{Path, PathBuf};

fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(dir);
    let mut found = Vec::new();
    let mut open = vec![root];
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
    assert!(!found.is_empty(), "no sources in {dir}");
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
    let found = uses(
        &sources("edge"),
        &["rustls", "rusqlite", "ureq", "actix_web", "crate::meter::", "rcgen"],
    );
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn followers_and_surfaces_know_no_runtime_and_no_clock() {
    let sans_io = [
        "http.rs", "http1", "http2", "sse.rs", "coding", "surface", "exchange", "price",
        "usage.rs", "row.rs",
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/meter");
    let files: Vec<_> = sources("meter")
        .into_iter()
        .filter(|(path, _)| {
            let path = path.strip_prefix(&root).unwrap();
            let part_is = |wanted: fn(&str, &str) -> bool, names: &[&str]| {
                path.components().any(|part| {
                    let part = part.as_os_str().to_string_lossy();
                    names.iter().any(|name| wanted(&part, name))
                })
            };
            // Tests may drive them with a real peer.
            part_is(|part, name| part.starts_with(name), &sans_io)
                && !part_is(|part, name| part == name, &["tests", "tests.rs"])
        })
        .collect();
    assert!(files.len() >= sans_io.len());
    let found =
        uses(&files, &["tokio::", "actix", "Instant::now", "SystemTime::now", "Timestamp::now"]);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn platform_differences_stay_in_their_folders() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
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
