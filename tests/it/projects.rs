//! Whose request was it? Real processes, in directories of their own.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{DEADLINE, Stand, binary};
use crate::programs::{self, Program, show};

const PROCESSES: usize = 40;
const CONNECTIONS: usize = 5;
/// Processes that connect at once: more, and a busy machine passes most of them unmetered.
const WAVE: usize = 4;

/// A client's directory and environment, and what is to be found.
struct Client {
    dir: std::path::PathBuf,
    variable: Option<String>,
    project: String,
    source: &'static str,
    branch: Value,
}

#[test]
fn two_hundred_open_connections_each_find_their_project() {
    let stand = Stand::new();
    stand.must(&["start"]);
    let env: HashMap<String, String> = serde_json::from_value(stand.json(&["env"])).unwrap();
    let clients: Vec<Client> = (0..PROCESSES).map(|n| client(stand.scratch(), n)).collect();
    let mut children = Vec::new();
    for (n, client) in clients.iter().enumerate() {
        children.push(connect(client, n, &env));
        if children.len() % WAVE == 0 {
            stand.origin.wait_at_gate(children.len() * CONNECTIONS, DEADLINE);
        }
    }
    let pids: Vec<u32> = children.iter().map(|child| child.0.id()).collect();
    (0..PROCESSES * CONNECTIONS).for_each(|_| stand.origin.open_gate());
    for mut child in children {
        assert!(child.0.wait().unwrap().success(), "{}", stand.logs());
    }
    let mut passed = 0;
    stand.wait("account of each connection", || {
        passed = stand.coverage()["passed_connections"].as_u64().unwrap() as usize;
        stand.finished_rows().len() + passed >= PROCESSES * CONNECTIONS
    });
    let rows = stand.wait_rows(PROCESSES * CONNECTIONS - passed);
    let mut connections: Vec<&Value> = rows.iter().map(|row| &row["connection"]).collect();
    connections.sort_by_key(|id| id.to_string());
    connections.dedup();
    assert_eq!(connections.len(), rows.len());
    let mut sources = HashMap::new();
    for (n, client) in clients.iter().enumerate() {
        let session = format!("process-{n}");
        let own: Vec<_> = rows.iter().filter(|row| row["session"] == session.as_str()).collect();
        assert!(passed > 0 || own.len() == CONNECTIONS, "{session}: {own:#?}");
        *sources.entry(client.source).or_insert(0) += own.len();
        for row in own {
            let found =
                ["project", "project_source", "branch", "client_pid", "cwd"].map(|f| &row[f]);
            let cwd = client.dir.canonicalize().unwrap();
            let expected = [
                &json!(client.project),
                &json!(client.source),
                &client.branch,
                &json!(pids[n]),
                &json!(cwd.to_str().unwrap()),
            ];
            assert_eq!(found, expected, "{session}{}", stand.logs());
        }
    }
    assert!(sources.values().all(|&n| n > 0), "{passed} passed, {sources:?}{}", stand.logs());
}

#[test]
fn a_home_behind_a_link_is_home() {
    let stand = Stand::new();
    let (home, link) = (stand.scratch().join("real-home"), stand.scratch().join("home"));
    fs::create_dir_all(home.join("notes")).unwrap();
    // Of nobody, as those of everybody's home are.
    fs::create_dir(home.join(".vscode")).unwrap();
    fs::create_dir(home.join(".git")).unwrap();
    fs::write(home.join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
    symlink(&home, &link).unwrap();
    for (dir, project, source) in
        [("notes", json!("notes"), json!("cwd")), ("", Value::Null, Value::Null)]
    {
        let mut command = stand.command(&["project", "here", "--json"]);
        let here = command.env("HOME", &link).current_dir(link.join(dir)).output().unwrap();
        let here: Value = serde_json::from_slice(&here.stdout).unwrap();
        assert_eq!((&here["project"], &here["source"]), (&project, &source), "{here}");
    }
}

#[test]
fn code_on_a_command_line_is_no_name() {
    let stand = Stand::new();
    let code = "import urllib.request as u; api_key='sk-proj-1'; u.urlopen(u.Request(\
        'https://api.anthropic.com/v1/messages', \
        b'{\"model\":\"claude-sonnet-4-5\",\"max_tokens\":9,\"messages\":[]}', \
        {'x-api-key': api_key, 'content-type': 'application/json'})).read()";
    let program = Program::new(["python3", "-uc", code, "sk-proj-2"]);
    let ran = stand.run_command(&program).current_dir("/").output().unwrap();
    assert!(ran.status.success(), "{}{}", show(&ran), stand.logs());
    let row = &stand.wait_rows(1)[0];
    let client = row["client"].as_str().unwrap();
    assert!(client.to_lowercase().starts_with("python"), "{row}");
    assert_eq!((&row["project"], &row["project_source"]), (&json!(client), &json!("program")));
    assert!(!row.to_string().contains("sk-proj"), "{row}");
}

#[test]
fn a_run_adds_up_what_a_run_within_it_asks() {
    let stand = Stand::new();
    let curl = programs::curl_messages("--http1.1", "Hello", false);
    let mut both = Program::new(["sh", "-c", "\"$@\" && exec \"$0\" run -- \"$@\""]);
    both.argv.push(binary().display().to_string());
    both.argv.extend(curl.argv);
    both.env = curl.env;
    let ran = stand.run(&both);
    assert!(ran.status.success(), "{}{}", show(&ran), stand.logs());
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    let sums: Vec<&str> = said.lines().filter(|line| line.contains("all metered")).collect();
    assert_eq!(sums.len(), 2, "{said}");
    assert!(sums[0].contains("1 request ") && sums[1].contains("2 requests "), "{said}");
    let runs: Vec<Value> = stand.wait_rows(2).iter().map(|row| row["run"].clone()).collect();
    let outer = runs[0].as_str().unwrap();
    assert!(runs[1].as_str().unwrap().starts_with(&format!("{outer}/")), "{runs:?}");
}

/// The `n`th process: some requests at once, each on a connection of its own, held at the gate.
fn connect(client: &Client, n: usize, env: &HashMap<String, String>) -> Ended {
    // What the wire says of the process, to hold against what is found out about it.
    let mut program = programs::curl_messages("--http1.1", "[[gate]]", true)
        .arg("-H")
        .arg(format!("x-claude-code-session-id: process-{n}"))
        .arg("--parallel")
        .arg("--parallel-immediate");
    for _ in 1..CONNECTIONS {
        program = program.arg("https://api.anthropic.com/v1/messages");
    }
    let mut command = Command::new(&program.argv[0]);
    command.args(&program.argv[1..]).envs(env).envs(program.env.iter().map(|(k, v)| (k, v)));
    command.env_remove("HALTON_PROJECT").current_dir(&client.dir);
    command.envs(client.variable.iter().map(|name| ("HALTON_PROJECT", name)));
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ended(silent.spawn().unwrap())
}

/// Ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The `n`th client: by turns a variable, a repository, a worktree, a file.
fn client(scratch: &Path, n: usize) -> Client {
    let root = scratch.join(format!("work/root-{n}"));
    let dir = root.join("src/deep");
    fs::create_dir_all(&dir).unwrap();
    let named = |project: String, source| Client {
        dir: dir.clone(),
        variable: None,
        project,
        source,
        branch: Value::Null,
    };
    match n % 4 {
        0 => {
            let project = format!("variable-{n}");
            Client { variable: Some(project.clone()), ..named(project, "explicit") }
        }
        1 => {
            fs::create_dir(root.join(".git")).unwrap();
            fs::write(root.join(".git/HEAD"), format!("ref: refs/heads/branch-{n}\n")).unwrap();
            let branch = json!(format!("branch-{n}"));
            Client { branch, ..named(format!("root-{n}"), "git") }
        }
        2 => {
            let main = scratch.join(format!("main-{n}/.git/worktrees/w"));
            fs::create_dir_all(&main).unwrap();
            fs::write(main.join("HEAD"), "ref: refs/heads/fix\n").unwrap();
            fs::write(main.join("commondir"), "../..\n").unwrap();
            fs::write(root.join(".git"), format!("gitdir: {}\n", main.display())).unwrap();
            Client { branch: json!("fix"), ..named(format!("main-{n}"), "git") }
        }
        _ => {
            let text = format!("[project]\nname = \"file {n}\"\n");
            fs::write(root.join(".halton.toml"), text).unwrap();
            named(format!("file {n}"), "file")
        }
    }
}
