//! The stand-ins for macOS's tools answer as the real ones do: texts and exit codes of their own
//! sources and of reports by their users.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{DEADLINE, free_port};
use crate::standins::Standins;

struct Mac {
    tools: Standins,
    dir: tempfile::TempDir,
}

impl Mac {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { tools: Standins::below(dir.path()), dir }
    }

    /// Exit code, stdout, stderr.
    fn ask(&self, tool: &str, args: &[&str]) -> (i32, String, String) {
        let output =
            Command::new(tool).args(args).env("PATH", self.tools.path()).output().expect(tool);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    fn code(&self, args: &[&str]) -> i32 {
        self.ask("launchctl", args).0
    }

    /// A file that launchd takes, of an agent `a.b` with this in it.
    fn agent(&self, more: &str) -> String {
        let path = self.dir.path().join("a.b.plist");
        let text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><plist version=\"1.0\"><dict>\
             <key>Label</key><string>a.b</string>{more}</dict></plist>"
        );
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

fn domain() -> String {
    format!("gui/{}", rustix::process::getuid().as_raw())
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < end, "no {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn launchctl_and_its_races() {
    let mac = Mac::new();
    let plist = mac.agent(
        "<key>RunAtLoad</key><true/><key>ProgramArguments</key><array><string>x</string></array>",
    );
    let (domain, target) = (domain(), format!("{}/a.b", domain()));
    let bootstrap = || mac.code(&["bootstrap", &domain, &plist]);

    let (code, _, said) = mac.ask("launchctl", &["print", &target]);
    assert_eq!(code, 113);
    assert!(said.contains("Could not find service \"a.b\" in domain for user gui: "), "{said}");
    assert_eq!(mac.code(&["bootout", &target]), 3);
    assert_eq!(mac.code(&["bootout", &domain, &plist]), 5);
    assert_eq!(mac.code(&["bootout", "--wait", &target]), 64);
    assert_eq!(mac.code(&["bootstrap", "gui/4711", &plist]), 125);

    // Disabled is disabled, whoever did it, until it is enabled.
    assert_eq!(mac.code(&["disable", &target]), 0);
    assert_eq!(bootstrap(), 5);
    assert_eq!(mac.code(&["enable", &target]), 0);
    assert_eq!(bootstrap(), 0);
    assert_eq!(bootstrap(), 5, "loaded already");
    assert_eq!(mac.tools.loaded(), ["a.b"]);
    let (_, shown, _) = mac.ask("launchctl", &["print", &target]);
    assert!(shown.contains("\tstate = running\n") && shown.contains("\tpid = "), "{shown}");

    // The label stays taken while the process ends.
    mac.tools.set("drain", 2);
    mac.tools.set("bootout_code", 36);
    assert_eq!(mac.code(&["bootout", &target]), 36);
    assert_eq!(bootstrap(), 5, "too early");
    assert_eq!(mac.code(&["print", &target]), 0, "still there");
    assert_eq!(mac.code(&["print", &target]), 113);
    assert_eq!(bootstrap(), 0);

    mac.tools.set("gui", false);
    assert_eq!(mac.code(&["bootstrap", &domain, &plist]), 125);
    // What was never modern says that all is well.
    assert_eq!(mac.code(&["load", &plist]), 0);
}

#[test]
fn calls_fail_on_request() {
    let mac = Mac::new();
    let off = ["-setwebproxystate", "Wi-Fi", "off"];
    mac.tools.fail_at(2);
    assert_eq!(mac.ask("networksetup", &["-setwebproxy", "Wi-Fi", "127.0.0.1", "1"]).0, 0);
    let before = mac.tools.settled();
    let (code, said, _) = mac.ask("networksetup", &off);
    assert_eq!((code, said.as_str()), (14, "** Error: Command requires admin privileges.\n"));
    assert_eq!(mac.tools.settled(), before);
    // It fails although it is done.
    mac.tools.set("fail", json!([{ "args": "state Wi-Fi off", "effect": true, "code": 9 }]));
    assert_eq!(mac.ask("networksetup", &off).0, 9);
    assert_ne!(mac.tools.settled(), before);
    assert_eq!(mac.tools.count(), 3);
    let calls = mac.tools.calls();
    assert_eq!(calls.last().unwrap(), "networksetup -setwebproxystate Wi-Fi off -> 9");
    // The caller is killed behind the call.
    mac.tools.set("fail", json!([{ "tool": "launchctl", "kill": true }]));
    let script = "launchctl setenv A b; echo reached";
    let output =
        Command::new("sh").args(["-c", script]).env("PATH", mac.tools.path()).output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert_eq!(mac.tools.state()["launchd"]["env"]["A"], "b");
}

#[test]
fn networksetup_and_scutil() {
    let mac = Mac::new();
    let (_, listing, _) = mac.ask("networksetup", &["-listallnetworkservices"]);
    let names: Vec<_> = listing.lines().skip(1).collect();
    assert_eq!(names, ["*USB 10/100/1000 LAN 2", "Wi-Fi", "Corp VPN (1)", "Thunderbolt Bridge"]);
    let (code, said, _) = mac.ask("networksetup", &["-getwebproxy", names[0]]);
    assert_eq!((code, said.as_str()), (8, "** Error: Unable to find item in network database.\n"));
    let (code, said, _) = mac.ask("networksetup", &["-getautoproxyurl", names[0]]);
    assert_eq!(code, 4);
    assert!(said.starts_with("*USB 10/100/1000 LAN 2 is not a recognized network service."));
    mac.ask("networksetup", &["-setsecurewebproxy", "Wi-Fi", "10.0.0.1", "3128"]);
    let (_, said, _) = mac.ask("networksetup", &["-getsecurewebproxy", "Wi-Fi"]);
    assert!(said.starts_with("Enabled: Yes\nServer: 10.0.0.1\nPort: 3128\n"), "{said}");
    let (_, said, _) = mac.ask("scutil", &["--proxy"]);
    let in_force = "\n  HTTPSProxy : 10.0.0.1\n";
    let interfaces = "\n      HTTPSProxy : 10.0.0.1\n";
    assert!(said.contains(in_force) && said.contains(interfaces), "{said}");
    assert!(said.contains("\n  __SCOPED__ : <dictionary> {\n    en2 : "), "{said}");
    assert!(!said.contains("HTTPEnable"), "{said}");
    // A VPN that comes up is the primary service then.
    mac.tools.change(|state| {
        let services = state["network"].as_array_mut().unwrap();
        services.swap(1, 2);
    });
    let (_, said, _) = mac.ask("scutil", &["--proxy"]);
    assert!(!said.contains(in_force) && said.contains(interfaces), "{said}");
    mac.tools.set("admin", false);
    assert_eq!(mac.ask("networksetup", &["-setwebproxystate", "Wi-Fi", "off"]).0, 14);
}

#[test]
fn launchd_keeps_port_and_process() {
    let mac = Mac::new();
    let port = free_port().port();
    mac.tools.set("start", true);
    mac.tools.set("throttle", 0);
    // Answers one connection with its pid and ends.
    let program = "import os,socket\ns=socket.socket(fileno=3)\nc,_=s.accept()\n\
                   c.sendall(b'%d' % os.getpid())\nc.close()";
    let plist = mac.agent(&format!(
        "<key>ProgramArguments</key><array><string>python3</string><string>-c</string>\
         <string>{program}</string></array><key>KeepAlive</key><true/><key>Sockets</key><dict>\
         <key>proxy</key><dict><key>SockNodeName</key><string>127.0.0.1</string>\
         <key>SockServiceName</key><string>{port}</string></dict></dict>"
    ));
    let target = format!("{}/a.b", domain());
    assert_eq!(mac.code(&["bootstrap", &domain(), &plist]), 0);
    let answer = || {
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        client.flush().unwrap();
        let mut said = String::new();
        client.read_to_string(&mut said).map(|_| said.parse::<u32>().unwrap())
    };
    let (one, two) = (answer().unwrap(), answer().unwrap());
    assert_ne!(one, two, "another life, the same port");
    let running = || {
        let (_, shown, _) = mac.ask("launchctl", &["print", &target]);
        shown.lines().find_map(|l| l.trim().strip_prefix("pid = ")?.parse::<u32>().ok())
    };
    until("third life", || running().is_some_and(|pid| pid != two));
    assert_eq!(mac.code(&["bootout", &target]), 0);
    until("end", || mac.code(&["print", &target]) == 113);
    TcpStream::connect(("127.0.0.1", port)).unwrap_err();
    assert_eq!(mac.tools.state()["launchd"]["loaded"], Value::Object(serde_json::Map::new()));
}

#[test]
fn osascript_shows_the_texts_as_they_are() {
    let mac = Mac::new();
    for (title, text) in [
        ("Halton Meter", "budget all has passed 80%: $8.00 of $10.00"),
        // Neither an option, nor AppleScript, nor a shell's.
        ("-e", "\" & (do shell script \"id\") & \" $(rm) 'x' \\ \n é"),
        ("--", "-x"),
    ] {
        let command = halton_meter::macos::notification(title, text);
        let words: Vec<&str> = command[1..].iter().map(String::as_str).collect();
        let (code, said, error) = mac.ask(&command[0], &words);
        assert_eq!(code, 0, "{error}");
        let shown: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(shown, json!({ "title": title, "text": text, "left": [] }));
    }
    // The script holds nothing of either: it is the same whatever is told.
    let script = |text| halton_meter::macos::notification("T", text)[..8].to_vec();
    assert_eq!(script("a"), script("end run"));
    mac.tools.fail_at(1);
    assert_eq!(mac.ask("osascript", &["-e", "on run argv", "-e", "end run"]).0, 1);
}
