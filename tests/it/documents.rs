//! docs/json.md, read and compared with what the program really says.

use std::collections::BTreeSet;

use rusqlite::Connection;
use serde_json::Value;

use crate::harness::Stand;
use crate::programs::{self, show};

const DOCUMENT: &str = include_str!("../../docs/json.md");
/// A key that stands for keys that are not shown.
const MORE: &str = "…";
/// The fields whose words are fixed.
const WORDS: [&str; 5] = ["state", "verdict", "health", "id", "by"];

/// The part below a heading.
fn section(heading: &str) -> &'static str {
    let (_, rest) = DOCUMENT.split_once(&format!("\n## {heading}\n")).expect(heading);
    rest.split("\n## ").next().unwrap()
}

fn block(section: &str) -> Value {
    let (_, rest) = section.split_once("```json\n").expect("a block of JSON");
    serde_json::from_str(rest.split_once("```").unwrap().0).expect("JSON")
}

/// The names in the first column of a table.
fn fields(section: &'static str, table: &str) -> BTreeSet<&'static str> {
    let (_, rest) = section.split_once(&format!("| field of {table} | |\n|---|---|\n")).unwrap();
    let rows = rest.lines().take_while(|line| line.starts_with("| "));
    let firsts = rows.filter_map(|line| line.split(" | ").next());
    firsts.flat_map(|first| first.split('`').skip(1).step_by(2)).collect()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect()
}

/// Where the document says something else than the program.
fn differences(place: &str, said: &Value, real: &Value, found: &mut Vec<String>) {
    match (said, real) {
        (Value::Object(fields), Value::Object(_)) => {
            let (mut named, there) = (keys(said), keys(real));
            let partly = named.remove(MORE);
            if !named.is_subset(&there) || !(partly || named == there) {
                found.push(format!("{place}: {named:?}, really {there:?}"));
            }
            for (key, value) in fields {
                differences(&format!("{place}/{key}"), value, &real[key], found);
                if WORDS.contains(&key.as_str()) && value.is_string() && *value != real[key] {
                    found.push(format!("{place}/{key}: {value}, really {}", real[key]));
                }
            }
        }
        (Value::Array(said), Value::Array(real)) => {
            for item in said {
                let same = |other: &&Value| item["id"] == other["id"];
                match real.iter().find(same) {
                    Some(real) => differences(&format!("{place}[]"), item, real, found),
                    None => found.push(format!("{place}: nothing like {item}")),
                }
            }
        }
        (Value::Object(_) | Value::Array(_), _) if real.is_null() => {
            found.push(format!("{place}: null, nothing was tested"));
        }
        (_, _) => {}
    }
}

fn assert_same(said: &Value, real: &Value) {
    let mut found = Vec::new();
    differences("", said, real, &mut found);
    assert!(found.is_empty(), "{found:#?}\n{real:#}");
}

#[test]
fn status_and_report_are_what_the_document_says() {
    let stand = Stand::started();
    let output = stand.run(&programs::curl_messages("--http1.1", "hi", false));
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    stand.wait_rows(1);
    stand.wait_metering();
    // A client that refuses our certificate.
    let refusing = programs::curl_messages("--http1.1", "hi", false);
    let root = stand.root_pem().display().to_string();
    let output = stand.run(&refusing.args(&["--cacert", &root]));
    assert_eq!(output.status.code(), Some(60), "{}", show(&output));
    let mut status = Value::Null;
    stand.wait("it on the list", || {
        status = stand.json(&["status"]);
        status["bypass"].as_array().is_some_and(|list| !list.is_empty())
    });
    assert_same(&block(section("`status --json`")), &status);

    // As if the usage had not been told.
    let ledger = Connection::open(stand.home.ledger_file()).unwrap();
    ledger.execute("UPDATE requests SET usage = 'absent', cost_nanousd = NULL", []).unwrap();
    drop(ledger);
    let report = stand.json(&["report", "--since", "1d", "--vs-previous"]);
    let section = section("`report --json`");
    assert_same(&block(section), &report);
    assert_eq!(fields(section, "totals"), keys(&report["summary"]));
    assert_eq!(fields(section, "coverage"), keys(&report["coverage"]));
}
