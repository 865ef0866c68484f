//! The real clients, as commands. None of them needs the product to run.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Models whose prices the tests know.
pub const CLAUDE: &str = "claude-sonnet-4-5-20250929";
pub const GPT: &str = "gpt-5";
pub const GEMINI: &str = "gemini-2.5-flash";

/// What names the root of the origin to clients that meet it directly.
pub const CA_VARS: [&str; 6] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "AWS_CA_BUNDLE",
    "CODEX_CA_CERTIFICATE",
];

/// What the origin says, whichever provider it plays.
pub const TEXT: &str = "Good day from the origin ✓";

/// No program runs longer, curl's own limit included. Below the limit of a test, so that it can still
/// say what was going on.
const PATIENCE: Duration = Duration::from_secs(200);

/// A program with its arguments, to be run directly or by the product.
#[derive(Clone, Debug)]
pub struct Program {
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
}

impl Program {
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), env: Vec::new() }
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.argv.push(arg.into());
        self
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.argv.extend(args.iter().map(|a| (*a).to_owned()));
        self
    }

    /// Runs it without the product, through a blind proxy that leads to the origin.
    pub fn direct(&self, proxy: std::net::SocketAddr, ca_file: &Path, home: &Path) -> Output {
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]);
        clean(&mut command, home);
        for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
            command.env(name, format!("http://{proxy}"));
        }
        for name in CA_VARS {
            command.env(name, ca_file);
        }
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        in_time(&mut command)
    }
}

/// Runs it to its end. One that hangs is asked to end, which a client of ours answers with its stacks
/// on stderr, and its status says so.
pub fn in_time(command: &mut Command) -> Output {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the program runs");
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a pid");
    let (ended, end) = channel::<()>();
    let watcher = std::thread::spawn(move || {
        if let Err(RecvTimeoutError::Timeout) = end.recv_timeout(PATIENCE) {
            let _ = kill_process(pid, Signal::TERM);
        }
    });
    let output = child.wait_with_output().expect("its output");
    drop(ended);
    watcher.join().expect("the watcher");
    output
}

/// Nothing of the developer's own environment reaches a client but the search path.
pub fn clean(command: &mut Command, home: &Path) {
    command.env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HOME", home);
    command.env("LANG", "C.UTF-8");
    // Python's launchers and Go's cache live under the real home.
    for name in ["PYENV_ROOT", "GOCACHE", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
}

/// Where tools/clients.sh put them.
pub fn clients() -> PathBuf {
    std::env::var_os("HALTON_CLIENTS_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients"),
        |dir| std::path::absolute(dir).expect("clients directory"),
    )
}

/// Where the search path has it.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut found = std::env::split_paths(&path).map(|dir| dir.join(program));
    found.find(|file| file.is_absolute() && file.is_file())
}

/// A file of tests/clients.
pub fn script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name).display().to_string()
}

/// The directory in which tools/clients.sh installed what a file of tests/clients asks for: the one
/// that holds an equal copy. Other worktrees may have others beside it.
pub fn set(file: &str) -> Option<PathBuf> {
    let wanted = std::fs::read(script(file)).expect("a file of tests/clients");
    let mut sets = std::fs::read_dir(clients()).ok()?.flatten().map(|entry| entry.path());
    sets.find(|dir| std::fs::read(dir.join("spec")).is_ok_and(|spec| spec == wanted))
}

/// A file of a set that every run of the tests needs.
pub fn installed(file: &str, path: &str) -> String {
    let found = set(file).map(|dir| dir.join(path)).filter(|path| path.exists());
    let found = found.unwrap_or_else(|| panic!("no {path} of {file}: run tools/clients.sh"));
    found.display().to_string()
}

/// A file of a set that only the full suite has; says so where it is missing.
pub fn full(file: &str, path: &str) -> Option<String> {
    let found = set(file).map(|dir| dir.join(path)).filter(|path| path.exists());
    if found.is_none() {
        missing(&format!("{path} of tests/clients/{file}"));
    }
    Some(found?.display().to_string())
}

/// Where `what` this machine can't check is written too: a test that passes is not heard. tools/test.sh
/// shows it at its end.
const NOT_CHECKED_VAR: &str = "HALTON_NOT_CHECKED";

/// Every test that gives up says so by this: the name of a thing that is the same in each run.
pub fn not_checked(what: impl Display) {
    eprintln!("NOT CHECKED: {what}");
    if let Some(file) = std::env::var_os(NOT_CHECKED_VAR) {
        note(Path::new(&file), what);
    }
}

/// One line by one write: tests run beside each other.
pub fn note(file: &Path, what: impl Display) {
    let line = format!("{}\n", what.to_string().replace('\n', " "));
    let file = OpenOptions::new().append(true).create(true).open(file);
    file.and_then(|mut file| file.write_all(line.as_bytes())).expect(NOT_CHECKED_VAR);
}

/// Not to be overlooked; and a failure where everything has to be there.
pub fn missing(what: &str) {
    not_checked(format_args!("{what} is not installed (tools/clients.sh --all)"));
    assert!(std::env::var_os("HALTON_CLIENTS_ALL").is_none(), "{what} is missing");
}

pub fn python(name: &str, args: &[&str]) -> Program {
    let python = installed("requirements.txt", "bin/python");
    Program::new([python, script(name)]).args(args)
}

pub fn node(name: &str, args: &[&str]) -> Program {
    node_with(installed("package.json", "node_modules"), name, args)
}

/// `packages`: where Node finds them.
pub fn node_with(packages: String, name: &str, args: &[&str]) -> Program {
    Program::new(["node".to_owned(), script(name)]).args(args).env("HALTON_NODE_DIR", packages)
}

/// curl; `--fail-with-body` stays off so that error answers are compared too.
pub fn curl(args: &[&str]) -> Program {
    Program::new(["curl", "--silent", "--show-error", "--max-time", "180"]).args(args)
}

/// A Messages request by curl.
pub fn curl_messages(http: &str, prompt: &str, stream: bool) -> Program {
    let body = format!(
        r#"{{"model":"{CLAUDE}","max_tokens":64,"stream":{stream},"messages":[{{"role":"user","content":"{prompt}"}}]}}"#
    );
    curl(&[
        http,
        "https://api.anthropic.com/v1/messages",
        "-H",
        "X-Api-Key: dummy-key",
        "-H",
        "anthropic-version: 2023-06-01",
        "-H",
        "content-type: application/json",
        "--data-binary",
        &body,
    ])
}

/// The one JSON line that the SDK scripts print.
pub fn answer(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", show(output)))
}

pub fn show(output: &Output) -> String {
    format!(
        "{}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
