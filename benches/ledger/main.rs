//! The ledger at length: `cargo bench --bench ledger -- report 1000000` and `-- soak 600 2000`
//! (requests per second; each is written twice). Without a word it does a little of both, for CI.

#[path = "../generate.rs"]
mod generate;
mod read;
mod soak;

use std::path::PathBuf;
use std::str::FromStr;

use halton_meter::home::Home;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|w| w != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["report", rows] => report(number(rows)),
        ["read", home] => read::read(&Home::at(PathBuf::from(home))),
        ["soak", seconds, rate] => soak::soak(number(seconds), number(rate)),
        _ => {
            report(20_000);
            soak::soak(3, 2000);
        }
    }
}

fn number<T: FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text} is not a number"))
}

fn report(rows: i64) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("home"));
    generate::generate(&home, rows);
    // A process of its own: its memory is the report's.
    let program = std::env::current_exe().unwrap();
    let status = std::process::Command::new(program).arg("read").arg(home.path()).status().unwrap();
    assert!(status.success());
}
