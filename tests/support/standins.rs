//! macOS's tools on any machine: launchctl, networksetup, security, scutil, osascript, and Linux's systemctl
//! (`tests/standins/`), with their state in a directory.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

const TOOLS: [&str; 6] =
    ["launchctl", "networksetup", "security", "scutil", "osascript", "systemctl"];

/// A macOS of a test's own. What really runs (`"start": true`) ends when this is dropped, or with the
/// test's process.
#[derive(Debug)]
pub struct Standins {
    dir: PathBuf,
    /// Answers the tools' calls until its standard input ends.
    server: Child,
}

impl Standins {
    /// Below `dir`, which outlives it.
    pub fn below(dir: &Path) -> Self {
        let dir = dir.join("macos");
        let bin = dir.join("bin");
        fs::create_dir_all(&bin).expect("directory of the stand-ins");
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/standins");
        for tool in TOOLS {
            symlink(scripts.join("call"), bin.join(tool)).expect("link to a stand-in");
        }
        let path = search_path(&dir);
        let mut server = Command::new("python3")
            .args(["-SEB".as_ref(), scripts.join("tools.py").as_os_str(), dir.as_os_str()])
            .env("PATH", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut said = String::new();
        let stdout = server.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut said).expect("server's output");
        assert_eq!(said, "ready\n", "tests/standins/tools.py");
        let made = Self { dir, server };
        made.write("settings.json", &json!({ "while_pid": std::process::id() }));
        made
    }

    /// The search path that finds them first.
    pub fn path(&self) -> OsString {
        search_path(&self.dir)
    }

    /// Sets one of the settings that `tests/standins/standin.py` lists.
    pub fn set(&self, name: &str, value: impl Into<Value>) {
        let mut settings = self.read("settings.json").unwrap_or_default();
        settings[name] = value.into();
        self.write("settings.json", &settings);
    }

    /// Lets the n-th call from now fail, whichever it is (1 = the next).
    pub fn fail_at(&self, n: usize) {
        self.set("fail", json!([{ "at": self.count() + n }]));
    }

    /// How many calls there were.
    pub fn count(&self) -> usize {
        let count = fs::read_to_string(self.dir.join("count"));
        count.ok().and_then(|c| c.parse().ok()).unwrap_or_default()
    }

    /// Each call that came to its end: `TOOL ARGUMENTS -> EXIT`.
    pub fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join("calls")).unwrap_or_default();
        let call = |line| {
            let call: Value = serde_json::from_str(line).expect("a call");
            let args: Vec<_> =
                call["args"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let tool = call["tool"].as_str().unwrap_or_default();
            format!("{tool} {} -> {}", args.join(" "), call["exit"])
        };
        text.lines().map(call).collect()
    }

    /// What the tools have set: `launchd` (loaded, disabled, env), `network`, `security`. Null before
    /// the first call.
    pub fn state(&self) -> Value {
        self.read("state.json").unwrap_or_default()
    }

    /// Changes that state as a person or another program would. After the first call only.
    pub fn change(&self, change: impl FnOnce(&mut Value)) {
        let mut state = self.state();
        change(&mut state);
        self.write("state.json", &state);
    }

    /// The same, without what differs between two runs that did the same: what to compare.
    pub fn settled(&self) -> Value {
        let mut state = self.state();
        let jobs = state.pointer_mut("/launchd/loaded").and_then(Value::as_object_mut);
        for job in jobs.into_iter().flat_map(|jobs| jobs.values_mut()) {
            for counter in ["pid", "runs", "last"] {
                job[counter] = Value::Null;
            }
        }
        if let Some(draining) = state.pointer_mut("/launchd/draining") {
            *draining = Value::Null;
        }
        state
    }

    /// Labels that are loaded, sorted.
    pub fn loaded(&self) -> Vec<String> {
        let state = self.state();
        let loaded = state.pointer("/launchd/loaded").and_then(Value::as_object);
        let mut labels: Vec<_> = loaded.into_iter().flat_map(|jobs| jobs.keys().cloned()).collect();
        labels.sort();
        labels
    }

    fn read(&self, name: &str) -> Option<Value> {
        let text = fs::read_to_string(self.dir.join(name)).ok()?;
        Some(serde_json::from_str(&text).expect("JSON"))
    }

    fn write(&self, name: &str, value: &Value) {
        let (path, new) = (self.dir.join(name), self.dir.join(format!("{name}.new")));
        fs::write(&new, value.to_string()).expect("write");
        fs::rename(new, path).expect("rename");
    }
}

impl Drop for Standins {
    fn drop(&mut self) {
        // Keepers of jobs end, and end their jobs, when this is gone (tests/standins/launchd.py).
        let jobs = fs::read_dir(self.dir.join("jobs")).into_iter().flatten().flatten();
        let keepers: Vec<u32> = jobs
            .filter(|f| f.path().extension().is_some_and(|e| e == "json"))
            .filter_map(|f| serde_json::from_str::<Value>(&fs::read_to_string(f.path()).ok()?).ok())
            .filter_map(|job| u32::try_from(job["keeper"].as_u64()?).ok())
            .collect();
        let _ = self.server.kill();
        let _ = self.server.wait();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        // Again, as a keeper may write a file meanwhile.
        while fs::remove_dir_all(&self.dir).is_err_and(|e| e.kind() != ErrorKind::NotFound)
            && std::time::Instant::now() < end
        {}
        let alive = |pid: &u32| Path::new(&format!("/proc/{pid}/stat")).exists() && !zombie(*pid);
        while keepers.iter().any(alive) && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

fn search_path(dir: &Path) -> OsString {
    let mut path = dir.join("bin").into_os_string();
    path.push(":/usr/bin:/bin:/usr/sbin:/sbin");
    path
}

fn zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}
