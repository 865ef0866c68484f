use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use super::*;

#[test]
fn programs_have_the_name_that_users_give_them() {
    let cases: [(&str, &[&str], &str, bool); 44] = [
        (
            "/opt/homebrew/Frameworks/Python.framework/Versions/3.14/Resources/Python.app/Contents/MacOS/Python",
            &["/opt/homebrew/bin/python3", "/Users/me/agent.py"],
            "agent",
            false,
        ),
        ("/L/Python.app/Contents/MacOS/Python", &["python3", "-c", "k='sk-1'"], "Python", true),
        ("/usr/bin/curl", &["curl", "-s"], "curl", false),
        ("/home/u/.local/share/claude/versions/2.1.330", &["claude"], "claude", false),
        ("/home/u/.local/share/claude/versions/2.1.330", &["2.1.330"], "claude", false),
        ("/usr/bin/node", &["node", "/usr/bin/gemini", "-p"], "gemini", false),
        (
            "/usr/bin/node22",
            &["node", "--no-warnings", "/l/node_modules/@google/gemini-cli/dist/index.js"],
            "gemini-cli",
            false,
        ),
        ("/usr/bin/node", &["node", "/l/node_modules/qwen/cli.js"], "qwen", false),
        ("/usr/bin/python3.12", &["python", "-m", "aider.__main__"], "aider", false),
        ("/usr/bin/python3.12", &["python", "/home/me/agent.py"], "agent", false),
        ("/usr/bin/python3.12", &["python", "/home/me/shop/main.py"], "shop", false),
        ("/usr/bin/python3", &["python3", "-c", "print(1)"], "python3", true),
        ("/usr/bin/python3", &["python3", "-W", "ignore", "agent.py"], "agent", false),
        ("/usr/bin/pypy3", &["pypy3", "-X", "utf8", "-m", "aider"], "aider", false),
        ("/usr/bin/python3", &["python3", "-X"], "python3", true),
        // A flag alone, there.
        ("/usr/bin/ruby", &["ruby", "-W", "agent.rb"], "agent", false),
        ("/usr/bin/node", &["node"], "node", true),
        ("/usr/bin/java", &["java", "-Xmx1g", "-jar", "/opt/tool.jar"], "tool", false),
        ("/usr/bin/java", &["java", "-p", "mods", "-m", "acme/acme.Agent"], "acme", false),
        ("/usr/bin/node", &["node", "--env-file", ".env", "agent.js"], "agent", false),
        (
            "/usr/bin/python3",
            &["python3", "/Users/me/My (new) work/main.py"],
            "My (new) work",
            false,
        ),
        ("/usr/bin/python3", &["python3", "/home/me/my agent.py"], "my agent", false),
        ("/usr/bin/node", &["node", "my new agent.mjs"], "my new agent", false),
        // A shell's `<(…)`, and what else is open.
        ("/usr/bin/python3", &["python3", "/dev/fd/63"], "python3", true),
        ("/usr/bin/python3", &["python3", "/proc/self/fd/3"], "python3", true),
        ("/usr/bin/bash", &["bash", "/dev/stdin"], "bash", true),
        ("/usr/bin/python3", &["python3", "/dev/shm/agent.py"], "agent", false),
        // As npm brings it.
        ("/l/node_modules/bun/bin/bun.exe", &["bun", "agent.ts"], "agent", false),
        ("/l/node_modules/bun/bin/bun.exe", &["bunx", "cowsay"], "cowsay", false),
        ("/l/node_modules/bun/bin/bunx.exe", &["bunx", "--bun", "cowsay"], "cowsay", false),
        ("/l/node_modules/bun/bin/bun.exe", &["bun.exe", "-e", "x"], "bun", true),
        ("/opt/tool.exe", &["tool.exe"], "tool", false),
        // Code, and what it is given.
        ("/usr/bin/python3", &["python3", "-uc", "k='sk-proj-1'"], "python3", true),
        ("/usr/bin/node", &["node", "-pe", "k='sk-proj-1'"], "node", true),
        ("/usr/bin/perl", &["perl", "-we", "print 1", "sk-proj-1"], "perl", true),
        ("/usr/bin/python3", &["python3", "-cprint(1)", "sk-proj-1"], "python3", true),
        // As if an option were not known.
        ("/usr/bin/node", &["node", "fetch('/a', {k: 'sk-proj-1'})"], "node", true),
        ("/usr/bin/node", &["node", "k=`sk-proj-1`; require('/app/main.js')"], "node", true),
        ("/usr/bin/node", &["node", "print sk-proj-1"], "node", true),
        ("/l/claude/versions/2.1.330", &["claude --key=sk-proj-1"], "claude", false),
        // `process.title`, over the command line that was.
        ("/usr/bin/node", &["pi", "", "", ""], "pi", false),
        ("/usr/bin/node", &["node", "", ""], "node", true),
        ("/usr/bin/node", &["pi k='sk-proj-1'", "", ""], "node", true),
        ("/usr/bin/node", &["pi", "", "sk-proj-1"], "node", true),
    ];
    for (exe, arguments, want, interpreter) in cases {
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        let got = program::name(Some(Path::new(exe)), &arguments).unwrap();
        assert_eq!((got.name.as_str(), got.interpreter), (want, interpreter), "{arguments:?}");
    }
    assert_eq!(program::name(None, &[]), None);
    assert_eq!(program::name(None, &["python -c k='sk-proj-1'".to_owned()]), None);
}

#[test]
fn repositories_worktrees_and_submodules() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("shop");
    fs::create_dir_all(root.join(".git/worktrees/fix")).unwrap();
    fs::create_dir_all(root.join(".git/modules/lib")).unwrap();
    fs::create_dir_all(root.join("src/deep")).unwrap();
    fs::create_dir_all(root.join("vendor/lib")).unwrap();
    fs::write(root.join(".git/HEAD"), "ref: refs/heads/feature/x\n").unwrap();
    let found = git::repository(&root.join("src/deep"), None).unwrap();
    assert_eq!((found.name.as_str(), found.branch.as_deref()), ("shop", Some("feature/x")));
    assert_eq!(git::repository(&root, Some(&root)), None, "home itself");

    let tree = dir.path().join("elsewhere");
    fs::create_dir_all(&tree).unwrap();
    let git_dir = root.join(".git/worktrees/fix");
    fs::write(tree.join(".git"), format!("gitdir: {}\n", git_dir.display())).unwrap();
    fs::write(git_dir.join("HEAD"), "ref: refs/heads/fix\n").unwrap();
    fs::write(git_dir.join("commondir"), "../..\n").unwrap();
    let found = git::repository(&tree, None).unwrap();
    assert_eq!((found.name.as_str(), found.branch.as_deref()), ("shop", Some("fix")));
    fs::write(tree.join(".git"), "gitdir: ../shop/.git/worktrees/fix\n").unwrap();
    assert_eq!(git::repository(&tree, None).unwrap().name, "shop", "a relative link");
    for bare in ["shop.git", "shop/.bare"] {
        let git_dir = dir.path().join("bare").join(bare).join("worktrees/fix");
        fs::create_dir_all(&git_dir).unwrap();
        fs::write(git_dir.join("commondir"), "../..\n").unwrap();
        fs::write(tree.join(".git"), format!("gitdir: {}\n", git_dir.display())).unwrap();
        assert_eq!(git::repository(&tree, None).unwrap().name, "shop", "{bare}");
    }

    let module = root.join("vendor/lib");
    fs::write(module.join(".git"), "gitdir: ../../.git/modules/lib\n").unwrap();
    fs::write(root.join(".git/modules/lib/HEAD"), "0123abcd\n").unwrap();
    let found = git::repository(&module, None).unwrap();
    assert_eq!((found.name.as_str(), found.branch), ("lib", None));
    fs::write(root.join(".git/HEAD"), "ref: refs/heads/.invalid\n").unwrap();
    assert_eq!(git::repository(&root, None).unwrap().branch, None, "reftable");
}

#[test]
fn each_method_gives_way_to_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    // A home, as what is temporary is nobody's.
    let home = dir.path();
    let (root, deep) = (home.join("work"), home.join("work/shop/src"));
    fs::create_dir_all(&deep).unwrap();
    let of = |dir: &Path, folder: Option<&editor::Folder>| {
        let place = place::of(dir, folder, Some(home));
        place.project.map(|(name, method)| format!("{} {name}", method.as_str()))
    };
    let folder = |path: &Path, named| editor::Folder { path: path.to_path_buf(), named };
    let said = |text: &str| Some(text.to_owned());
    assert_eq!(of(&deep, None), said("cwd src"));
    assert_eq!(of(home, None), None);

    // An editor's folder: of what is in it, and of what is nowhere.
    let named = folder(&root.join("shop"), true);
    assert_eq!(of(&deep, Some(&named)), said("editor shop"));
    assert_eq!(of(Path::new("/"), Some(&named)), said("editor shop"));
    assert_eq!(of(&home.join("else"), Some(&named)), said("cwd else"));
    let started = folder(&root.join("shop"), false);
    assert_eq!(of(Path::new("/"), Some(&started)), None, "only where it was started");

    fs::create_dir(root.join("shop/.vscode")).unwrap();
    assert_eq!(of(&deep, None), said("editor shop"));
    assert_eq!(of(Path::new("/"), Some(&started)), said("editor shop"));
    fs::create_dir(root.join(".git")).unwrap();
    fs::write(root.join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
    assert_eq!(of(&deep, None), said("git work"));
    fs::write(home.join(FILE_NAME), "[project]\nname = \"all\"\n").unwrap();
    assert_eq!(of(&deep, None), said("file all"), "beyond the repository");
    assert_eq!(place::of(&deep, None, Some(home)).branch.as_deref(), Some("main"));
    fs::write(root.join(FILE_NAME), "[project\n").unwrap();
    assert_eq!(of(&deep, None), said("git work"), "a broken one");
    let problem = place::of(&deep, None, Some(home)).problem.unwrap();
    assert_eq!(problem.file, root.join(FILE_NAME));
}

#[test]
fn an_editors_folder_has_its_branch() {
    let dir = tempfile::tempdir().unwrap();
    let shop = dir.path().join("shop");
    fs::create_dir_all(shop.join(".git")).unwrap();
    fs::write(shop.join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
    for named in [true, false] {
        let folder = editor::Folder { path: shop.clone(), named };
        let place = place::of(Path::new("/"), Some(&folder), None);
        assert_eq!(place.project, Some(("shop".to_owned(), Method::Editor)));
        assert_eq!(place.branch.as_deref(), Some("main"));
        // Where it is not the one that counts.
        let place = place::of(Path::new("/srv/else"), Some(&folder), None);
        assert_eq!((place.branch, place.gone), (None, true));
    }
}

/// A shell whose output is a connection. It goes on when it is told to, and says so.
struct Shell {
    child: std::process::Child,
    server: TcpStream,
    peer: SocketAddr,
}

impl Shell {
    fn new(dir: &Path, script: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, peer) = listener.accept().unwrap();
        let child = Command::new("sh")
            .args(["-c", script])
            .current_dir(dir)
            .env("HALTON_PROJECT", "")
            .stdin(Stdio::piped())
            .stdout(Stdio::from(std::os::fd::OwnedFd::from(client)))
            .spawn()
            .unwrap();
        let mut shell = Self { child, server, peer };
        shell.goes_on();
        shell
    }

    fn goes_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        self.server.read_exact(&mut [0]).unwrap();
    }

    fn found(&self, attributor: &Attributor) -> Attribution {
        let found = attributor.attribute(self.peer, self.server.local_addr().unwrap());
        assert_eq!(found.pid, Some(self.child.id()));
        found
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn attributor() -> Attributor {
    Attributor::new(Logger::root(slog::Discard, slog::o!()))
}

/// Needs what only Linux tells.
#[test]
fn the_same_interpreter_anew_is_another_program() {
    if crate::platform::is_macos() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let one = "read a; echo; read b; HALTON_PROJECT=two HALTON_RUN=r exec sh -c 'echo; read c'";
    let (attributor, mut shell) = (attributor(), Shell::new(dir.path(), one));
    assert_eq!((shell.found(&attributor).project, shell.found(&attributor).run), (None, None));
    shell.goes_on();
    let found = shell.found(&attributor);
    assert_eq!((found.project.as_deref(), found.run.as_deref()), (Some("two"), Some("r")));
}

#[test]
fn a_server_that_goes_elsewhere_is_looked_at_again() {
    if !owner::AVAILABLE {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    for name in ["a", "b"] {
        fs::create_dir_all(root.join(name).join(".git")).unwrap();
        fs::write(root.join(name).join(".git/HEAD"), format!("ref: refs/heads/of-{name}\n"))
            .unwrap();
    }
    let goes = "read a; echo; read b; cd ../b; echo; read c";
    let (attributor, mut shell) = (attributor(), Shell::new(&root.join("a"), goes));
    for name in ["a", "b"] {
        let found = shell.found(&attributor);
        assert_eq!(found.cwd.as_deref(), root.join(name).to_str());
        assert_eq!(found.project.as_deref(), Some(name));
        assert_eq!(found.branch, Some(format!("of-{name}")));
        if name == "a" {
            shell.goes_on();
        }
    }
}

#[test]
fn a_directory_that_was_removed_is_what_it_was() {
    if !owner::AVAILABLE {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let (tree, git_dir) = (root.join("fix"), root.join("shop/.git/worktrees/fix"));
    let make = || {
        fs::create_dir_all(&tree).unwrap();
        fs::create_dir_all(&git_dir).unwrap();
        fs::write(tree.join(".git"), format!("gitdir: {}\n", git_dir.display())).unwrap();
        fs::write(git_dir.join("HEAD"), "ref: refs/heads/fix\n").unwrap();
        fs::write(git_dir.join("commondir"), "../..\n").unwrap();
    };
    make();
    let (attributor, shell) = (attributor(), Shell::new(&tree, "read a; echo; read b"));
    let of = |shell: &Shell| {
        // As a second later.
        attributor.memory().latest.clear();
        let found = shell.found(&attributor);
        assert_eq!(found.cwd.as_deref(), tree.to_str());
        (found.project, found.branch)
    };
    let was = (Some("shop".to_owned()), Some("fix".to_owned()));
    assert_eq!(of(&shell), was);
    fs::remove_dir_all(&tree).unwrap();
    assert_eq!(of(&shell), was);
    fs::remove_dir_all(root.join("shop")).unwrap();
    assert_eq!(of(&shell), was);
    // Another one in its place.
    fs::create_dir_all(tree.join(".git")).unwrap();
    fs::write(tree.join(".git/HEAD"), "ref: refs/heads/new\n").unwrap();
    assert_eq!(of(&shell), (Some("fix".to_owned()), Some("new".to_owned())));
}

/// Needs what only Linux gives so far; elsewhere nothing is found, which is no failure.
#[test]
fn a_connection_leads_to_its_process() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap().join("my-app");
    fs::create_dir_all(root.join(".git")).unwrap();
    fs::write(root.join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = TcpListener::bind(address) else { continue };
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, peer) = listener.accept().unwrap();
        let attributor = Attributor::new(Logger::root(slog::Discard, slog::o!()));
        let own = attributor.attribute(peer, server.local_addr().unwrap());
        if own == Attribution::default() && !owner::AVAILABLE {
            return;
        }
        assert_eq!(own.pid, Some(std::process::id()));
        assert_eq!(own.cwd.as_deref(), std::env::current_dir().unwrap().to_str());
        drop(client);

        // A child process holds the only copy of a socket.
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, peer) = listener.accept().unwrap();
        let fd = std::os::fd::OwnedFd::from(client);
        let mut child = Command::new("cat")
            .current_dir(&root)
            .env("HALTON_RUN", "run-1")
            .env("HALTON_PROJECT", " my project\n")
            .stdin(Stdio::piped())
            .stdout(Stdio::from(fd))
            .spawn()
            .unwrap();
        // It runs once it has answered.
        child.stdin.as_mut().unwrap().write_all(b"!").unwrap();
        (&server).read_exact(&mut [0]).unwrap();
        let found = attributor.attribute(peer, server.local_addr().unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.pid, Some(child.id()));
        assert_eq!(found.program.as_deref(), Some("cat"));
        assert_eq!(found.project.as_deref(), Some("my project"));
        assert_eq!(found.project_source, Some(Method::Explicit));
        assert_eq!(found.branch.as_deref(), Some("main"));
        assert_eq!(found.run.as_deref(), Some("run-1"));
        assert_eq!(found.cwd.as_deref(), root.to_str());
        // Nobody owns it any more.
        assert_eq!(
            attributor.attribute(peer, server.local_addr().unwrap()),
            Attribution::default()
        );
    }
}
