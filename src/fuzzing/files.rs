//! Files that people, editors, git and crashes write.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::config::{KEYS, Key, Origin, Value, load_from, with_value};
use crate::meter::attribution::foreign;
use crate::meter::ledger::said_in_file;
use crate::meter::price::{Book, Query, parse_own};
use crate::meter::usage::{Tokens, Usage, UsageState};
use crate::supervisor::JournalEntry;

/// What must not be shown again, wherever it stands.
const SECRET: &str = "sk-secret";

/// `config.toml`: whatever it says, there is a whole configuration, and problems have their line.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let file = Path::new("c.toml");
    let loaded = load_from(Some((file, &text)), |_| None, &[]);
    assert_eq!(loaded.values.len(), KEYS.len());
    for problem in &loaded.problems {
        let said = problem.to_string();
        let line =
            said.strip_prefix("c.toml:").and_then(|rest| rest.split(':').next()?.parse().ok());
        assert!(
            line.is_none_or(|line: usize| (1..=text.split('\n').count()).contains(&line)),
            "{said}"
        );
    }
    // A value that is changed leaves the others as they were.
    for (key, value) in [("edge.port", "9000"), ("bodies.enabled", "true")] {
        let Ok(edited) = with_value(&text, key, value) else { continue };
        let again = load_from(Some((file, &edited)), |_| None, &[]);
        for ((key_before, before, _), (_, after, _)) in loaded.values.iter().zip(&again.values) {
            // What made way for the port, said so, may come back.
            let back = ["daemon.api_port", "upstream.proxy", "upstream.http_proxy"]
                .contains(&key_before.name)
                && !loaded.problems.is_empty();
            assert!(
                key_before.name == key || back || before == after,
                "{} changed too",
                key_before.name
            );
        }
    }
    // One wrong line costs no other: each statement of a text that is whole is found.
    if toml::de::DeTable::parse(&text).is_ok() {
        let broken = format!("{text}\n= =\n");
        let again = load_from(Some((file, &broken)), |_| None, &[]);
        assert!(!again.problems.is_empty());
        let same = |a: &(&Key, Value, Origin), b: &(&Key, Value, Origin)| a.1 == b.1 && a.2 == b.2;
        assert!(loaded.values.iter().zip(&again.values).all(|(a, b)| same(a, b)), "{text:?}");
    }
}

/// The first bytes choose between a book and the user's own prices, and tokens to be priced.
pub fn prices(data: &[u8]) {
    let Some((&[own, tokens, shift, tier], text)) = data.split_first_chunk() else { return };
    let text = String::from_utf8_lossy(text);
    let tokens = Some(u64::from(tokens) << (shift % 57));
    let usage = Usage {
        state: UsageState::Reported,
        tokens: Tokens {
            input: tokens,
            cache_read: tokens,
            cache_write_1h: tokens,
            output: tokens,
            reasoning: tokens,
            ..Tokens::default()
        },
        tier: [None, Some("batch"), Some("flex")][usize::from(tier % 3)].map(str::to_owned),
        geo: (tier > 128).then(|| "us".to_owned()),
        web_searches: tokens,
        ..Usage::default()
    };
    let at = Timestamp::from_second(1_795_521_600).expect("a moment");
    let asked = |book: &Book, provider: &str, model: &str| {
        let quote = book.quote(&Query { provider, model, at, ended: at, usage: &usage });
        assert!(quote.cost_nanousd.is_some() || quote.reason.is_some(), "no cost and no reason");
        assert!(quote.cost_nanousd.is_none_or(|cost| cost >= 0), "{quote:?}");
        assert_eq!(quote.cost_nanousd.is_some(), quote.rule.is_some());
    };
    if own & 1 == 0 {
        if let Ok(book) = Book::parse(&text) {
            asked(&book, "p", "m");
            asked(&book, "p", "m-2026-01-01");
            let _ = book.prices(at);
        }
    } else if let Ok(own) = parse_own(&text) {
        let book = Book::builtin().with_own(own.get(..8).unwrap_or(&own));
        for price in own.iter().take(8) {
            asked(&book, &price.provider, &price.model);
        }
    }
}

/// Spool, register and journal, as crashes leave them: what is torn is skipped, and hides nothing of
/// the lines behind it.
pub fn lines(data: &[u8]) {
    let whole = said_in_file(data);
    let overlong = b" ".repeat(20_000);
    for before in [&b"{\"id\":\"0"[..], &overlong] {
        assert_eq!(said_in_file(&[before, b"\n", data].concat()), whole);
    }
    for line in data.split(|b| *b == b'\n') {
        if let Ok(entry) = serde_json::from_slice::<JournalEntry>(line) {
            let text = serde_json::to_vec(&entry).expect("it was JSON");
            assert_eq!(serde_json::from_slice::<JournalEntry>(&text).expect("our own"), entry);
        }
    }
}

/// `.halton.toml`, one-line files of git, and what editors say of their folder.
pub fn places(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match foreign::marked(&text) {
        Ok(name) => fit(name),
        // What it says of others' files goes to the log.
        Err(why) => assert!(!why.contains(SECRET), "{why}"),
    }
    let (git_dir, branch, name) = foreign::git(Path::new("/w/shop"), &text);
    assert!(git_dir.iter().all(|part| part != ".." && part != "."), "{git_dir:?}");
    fit(branch);
    fit(name);
    let arguments: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let folder: Option<PathBuf> = foreign::folder(&arguments);
    assert!(folder.is_none_or(|folder| folder.is_absolute()));
    fit(foreign::program(Path::new(&*text), &arguments));
    for exe in ["bash", "deno", "java", "node", "perl", "php", "python3", "ruby", "uv"] {
        let name = foreign::program(Path::new(exe), &arguments);
        // Code on a command line becomes nobody's name.
        assert!(!name.as_ref().is_some_and(|name| name.contains([';', '"', '`', '='])), "{name:?}");
        fit(name);
    }
}

/// A name that fits into a table.
fn fit(name: Option<String>) {
    if let Some(name) = name {
        assert!(!name.is_empty() && name.chars().count() <= 200, "{name}");
        assert!(!name.chars().any(char::is_control), "{name:?}");
    }
}
