//! What macOS says of its network, and what the commands make of it, with stand-ins for its tools.

use std::process::{Command, Output};

use halton_meter::platform::{PLATFORM_VAR, RECORD_VAR};
use serde_json::{Value, json};

use crate::harness::Stand;
use crate::programs::show;
use crate::standins::Standins;

struct Mac {
    tools: Standins,
    stand: Stand,
}

impl Mac {
    fn new() -> Self {
        let stand = Stand::new();
        let tools = Standins::below(stand.scratch());
        // There is no state before the first call.
        let listed = Command::new("networksetup")
            .arg("-listallnetworkservices")
            .env("PATH", tools.path())
            .output()
            .unwrap();
        assert!(listed.status.success());
        Self { tools, stand }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.stand.command(args);
        command.env("PATH", self.tools.path()).env(PLATFORM_VAR, "macos").env_remove(RECORD_VAR);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// The second service leads there, and not the first, which is in force.
    fn second_leads_to(&self, host: &str, port: u16) {
        self.tools.change(|state| {
            let services = state["network"].as_array_mut().unwrap();
            let active: Vec<_> = services.iter_mut().filter(|s| s["on"] == true).collect();
            for service in active.into_iter().skip(1) {
                service["secure"] = json!({ "on": true, "server": host, "port": port });
                service["web"] = service["secure"].clone();
            }
        });
    }
}

#[test]
fn doctor_does_not_take_an_interfaces_proxy_for_the_systems() {
    let mac = Mac::new();
    mac.second_leads_to("127.0.0.1", mac.stand.edge.port());
    let output = mac.run(&["doctor", "--json"]);
    let found: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", show(&output)));
    let said = found["findings"].as_array().unwrap().iter().find(|f| f["layer"] == "system-proxy");
    assert_eq!(said.unwrap()["what"], "does not point at us", "{found:#}");
}

#[test]
fn init_does_not_take_an_interfaces_proxy_for_the_way_out() {
    let mac = Mac::new();
    let planned = || {
        let output = mac.run(&["init", "--dry-run"]);
        assert!(output.status.success(), "{}", show(&output));
        format!("{}{}", show(&output), String::from_utf8_lossy(&output.stdout))
    };
    mac.second_leads_to("proxy.corp", 3128);
    let plan = planned();
    assert!(!plan.contains("proxy.corp"), "{plan}");
    mac.tools.change(|state| state["network"].as_array_mut().unwrap().reverse());
    let plan = planned();
    assert!(plan.contains("proxy.corp:3128"), "in force now: {plan}");
    // What an earlier `init` excepted on a service that leads to us is no wish of the user's.
    let own_port = mac.stand.edge.port();
    mac.tools.change(|state| {
        for service in state["network"].as_array_mut().unwrap() {
            if service["secure"]["server"] != "proxy.corp" {
                service["secure"] = json!({ "on": true, "server": "127.0.0.1", "port": own_port });
                service["bypass"] = json!(["172.16.0.0/12"]);
            }
        }
    });
    let plan = planned();
    assert!(plan.contains("proxy.corp:3128") && !plan.contains("172.16.0.0/12"), "{plan}");
}

/// The edge is an agent, and macOS may keep it from the local network; the tools are not.
#[test]
fn the_local_network_is_reached_without_us() {
    let mac = Mac::new();
    let no_proxy = |value: Option<&str>| {
        let mut command = mac.command(&["env", "--json"]);
        value.map(|value| command.env("HTTPS_PROXY", value));
        let output = command.output().unwrap();
        let vars: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", show(&output)));
        vars["NO_PROXY"].as_str().unwrap().to_owned()
    };
    let local = "localhost,127.0.0.1,::1,127.0.0.0/8,0.0.0.0,::";
    let near = ".local,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,169.254.0.0/16";
    assert_eq!(no_proxy(None), format!("{local},{near}"));
    assert_eq!(no_proxy(Some("http://proxy.corp:3128")), local);
    mac.stand.configure_hosts(&[], "[meter]\nplain_hosts = [\"gpu.local:11434\"]\n");
    assert_eq!(no_proxy(None), format!("{local},{}", near.trim_start_matches(".local,")));
}

/// Wherever they lead: who is cut off asks nothing.
#[test]
fn reset_proxy_switches_every_service_off_without_a_home() {
    let mac = Mac::new();
    mac.tools.change(|state| {
        for (n, service) in state["network"].as_array_mut().unwrap().iter_mut().enumerate() {
            service["secure"] = json!({ "on": true, "server": "10.0.0.1", "port": 3128 + n });
            service["web"] = service["secure"].clone();
        }
    });
    let on = || {
        let state = mac.tools.state();
        let services = state["network"].as_array().unwrap().iter().filter(|s| s["on"] == true);
        let proxies = services.flat_map(|s| [s["web"].clone(), s["secure"].clone()]);
        proxies.map(|proxy| proxy["on"] == true).collect::<Vec<_>>()
    };
    assert!(on().len() >= 4 && on().iter().all(|on| *on), "{:?}", on());
    let mut command = mac.command(&["reset-proxy"]);
    command.env_remove("HOME").env_remove("HALTON_METER_HOME");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", show(&output));
    assert!(on().iter().all(|on| !on), "{}", show(&output));
}
