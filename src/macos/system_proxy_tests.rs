use serde_json::json;

use super::super::local_network::NO_PROXY;
use super::super::standins::Standins;
use super::*;
use crate::setup::{self, Os};

const EDGE: ([u8; 4], u16) = ([127, 0, 0, 1], 8081);

struct Mac {
    tools: Standins,
    dir: tempfile::TempDir,
    proxy: NetworkSetup,
}

impl Mac {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tools = Standins::below(dir.path());
        let proxy = NetworkSetup { path: Some(tools.path()) };
        Self { tools, dir, proxy }
    }

    fn found(&self) -> Vec<NetworkService> {
        self.proxy.read().unwrap().unwrap()
    }

    fn apply(&self, steps: &[Step]) -> Result<(), setup::Failed> {
        let mut os = Os { path: Some(self.tools.path()), ..Os::default() };
        setup::execute(&mut os, &self.dir.path().join("journal"), steps)
    }

    fn set(&self) -> Vec<Step> {
        self.proxy.set(EDGE.into(), &NO_PROXY, &[], &self.found())
    }

    fn restore(&self, was: &[NetworkService]) -> Vec<Step> {
        self.proxy.restore(EDGE.into(), was, &self.found())
    }

    /// As a person would in the settings: a corporate proxy, one that is off, a list of exceptions.
    fn lived_in(&self) {
        self.found();
        self.tools.change(|state| {
            let services = state["network"].as_array_mut().unwrap();
            services[1]["secure"] = json!({ "on": true, "server": "proxy.corp", "port": 3128 });
            services[1]["web"] = json!({ "on": false, "server": "old.corp", "port": 8080 });
            services[2]["bypass"] = json!([]);
            services[3]["auto"] = json!({ "on": true, "url": "http://wpad/proxy.pac" });
        });
    }
}

#[test]
fn every_active_service_is_led_to_the_edge_and_back() {
    let mac = Mac::new();
    mac.lived_in();
    let (before, was) = (mac.tools.settled(), mac.found());
    mac.apply(&mac.set()).unwrap();
    assert_eq!(mac.proxy.leads_to(), ["127.0.0.1:8081", "127.0.0.1:8081"]);
    let led = |s: &&NetworkService| s.http.is(EDGE.into()) && s.https.is(EDGE.into());
    let found = mac.found();
    let led: Vec<_> = found.iter().filter(led).map(|s| s.name.as_str()).collect();
    assert_eq!(led, ["Wi-Fi", "Corp VPN (1)"], "nobody uses the first, and the last has a PAC");
    assert_eq!(mac.set(), [], "nothing to do twice");
    let after = mac.tools.settled();
    assert_eq!(
        (&after["network"][0], &after["network"][3]),
        (&before["network"][0], &before["network"][3])
    );

    mac.apply(&mac.restore(&was)).unwrap();
    let after = mac.tools.settled();
    assert_eq!(after["network"][1], before["network"][1]);
    assert_eq!(after["network"][2]["bypass"], json!([]));
    assert_eq!(mac.restore(&was), []);
    assert!(mac.found().iter().all(|s| !s.http.is(EDGE.into()) && !s.https.is(EDGE.into())));
}

#[test]
fn the_local_network_is_reached_without_us_where_no_other_proxy_is() {
    let mac = Mac::new();
    mac.lived_in();
    let was = mac.found();
    mac.apply(&mac.set()).unwrap();
    let bypass = |mac: &Mac, i: usize| mac.found().swap_remove(i + 1).bypass;
    let first = ["*.local", "169.254/16", "localhost", "127.0.0.1", "::1"];
    assert_eq!(bypass(&mac, 0), first, "proxy.corp may be the way");
    let near = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];
    let ours = ["localhost", "127.0.0.1", "::1", "*.local"];
    assert_eq!(bypass(&mac, 1), [&ours[..], &near, &["169.254/16"]].concat());
    // What was there before us says it also later.
    let again = mac.proxy.set(EDGE.into(), &NO_PROXY, &was, &mac.found());
    assert_eq!(again, []);
    assert_eq!(mac.set(), [], "nor is anything done where that is not known");
    // As an earlier version left it.
    mac.tools.change(|state| state["network"][2]["bypass"] = json!(ours[..3]));
    let more = mac.proxy.set(EDGE.into(), &NO_PROXY, &was, &mac.found());
    assert_eq!(more.len(), 1);
    mac.apply(&mac.restore(&was)).unwrap();
    assert_eq!(mac.tools.state()["network"][2]["bypass"], json!([]));
    mac.apply(&mac.set()).unwrap();
    mac.tools.change(|state| {
        state["network"][2]["bypass"].as_array_mut().unwrap().push(json!("mine"));
    });
    mac.apply(&mac.restore(&was)).unwrap();
    let left = bypass(&mac, 1);
    assert!(left.contains(&"mine".to_owned()), "somebody else's by now: {left:?}");
}

#[test]
fn what_others_set_meanwhile_stays() {
    let mac = Mac::new();
    mac.lived_in();
    let was = mac.found();
    mac.apply(&mac.set()).unwrap();
    mac.tools.change(|state| {
        state["network"][1]["secure"] = json!({ "on": true, "server": "new.corp", "port": 1 });
        state["network"][1]["bypass"] = json!(["mine"]);
        // One that was not there before, and leads to us: it goes off.
        state["network"][0]["on"] = json!(true);
        state["network"][0]["web"] = json!({ "on": true, "server": "127.0.0.1", "port": 8081 });
    });
    mac.apply(&mac.restore(&was)).unwrap();
    let after = mac.tools.state();
    assert_eq!(after["network"][1]["secure"]["server"], "new.corp");
    assert_eq!(after["network"][1]["bypass"], json!(["mine"]));
    assert_eq!(
        after["network"][1]["web"],
        json!({ "on": false, "server": "old.corp", "port": 8080 })
    );
    assert_eq!(after["network"][0]["web"]["on"], false);
    // A state that was saved while ours was set does not bring it back.
    mac.apply(&mac.set()).unwrap();
    let ours = mac.found();
    mac.apply(&mac.restore(&ours)).unwrap();
    assert_eq!(mac.proxy.leads_to(), [""; 0]);
}

#[test]
fn a_failure_anywhere_leaves_all_as_it_was() {
    for n in 1.. {
        let mac = Mac::new();
        mac.lived_in();
        mac.tools.change(|state| state["network"].as_array_mut().unwrap().truncate(2));
        let (before, steps) = (mac.found(), mac.set());
        mac.tools.fail_at(n);
        match mac.apply(&steps) {
            Ok(()) => {
                assert_eq!(n, steps.len() + 1, "all calls were tried");
                break;
            }
            Err(failed) => assert_eq!(failed.left, [""; 0]),
        }
        let mut after = mac.found();
        for (service, before) in after.iter_mut().zip(&before) {
            // A host that was never set can't be taken out, only switched off.
            for (now, was) in
                [(&mut service.http, &before.http), (&mut service.https, &before.https)]
            {
                if was.host.is_empty() && !now.on {
                    now.clone_from(was);
                }
            }
        }
        assert_eq!(after, before, "call {n}: {:#?}", mac.tools.calls());
    }
}

#[test]
fn another_location_is_another_place() {
    let mac = Mac::new();
    let was = mac.found();
    assert!(was.iter().all(|s| s.place == "Automatic"));
    mac.lived_in();
    let home = mac.found();
    mac.tools.change(|state| state["location"] = json!("Office"));
    assert!(mac.found().iter().all(|s| s.place == "Office"));
    mac.apply(&mac.set()).unwrap();
    mac.apply(&mac.restore(&home)).unwrap();
    assert_eq!(mac.proxy.leads_to(), [""; 0], "home's proxy is not the office's");
}

#[test]
fn only_what_is_wanted_is_asked() {
    let mac = Mac::new();
    let all = mac.found();
    let before = mac.tools.count();
    let known: Vec<_> = all.iter().map(|s| (s.place.as_str(), s.name.as_str())).collect();
    let is_new = |place: &str, name: &str| !known.contains(&(place, name));
    assert_eq!(mac.proxy.read_those(&is_new).unwrap(), Some(Vec::new()));
    assert_eq!(mac.tools.count() - before, 2, "where, and which there are");
}

#[test]
fn the_watchdog_leaves_other_peoples_proxies_on() {
    let mac = Mac::new();
    let corp = json!({ "on": true, "server": "proxy.corp", "port": 3128 });
    mac.found();
    mac.tools.change(|state| state["network"][2]["secure"] = corp.clone());
    let services = mac.found();
    let ours: Vec<_> = services.into_iter().filter(|s| s.name != "Corp VPN (1)").collect();
    mac.apply(&mac.proxy.set(EDGE.into(), &NO_PROXY, &[], &ours)).unwrap();
    let off = |blind| mac.proxy.off_where_it_leads_to(EDGE.into(), blind);
    mac.tools.set("fail", json!([{ "args": "^-get.*proxy Wi-Fi" }]));
    assert_eq!(off(false).unwrap(), ["Thunderbolt Bridge"]);
    assert_eq!(mac.tools.state()["network"][1]["web"]["on"], true, "it can't be told whose");
    assert_eq!(off(true).unwrap(), ["Wi-Fi"]);
    let state = mac.tools.state();
    assert_eq!(state["network"][2]["secure"], corp);
    assert_eq!(mac.proxy.leads_to(), [""; 0]);
    mac.tools.set("fail", json!([]));
    assert_eq!(off(true).unwrap(), [""; 0], "nothing of ours is on");
}

#[test]
fn what_was_switched_off_is_still_put_back() {
    let mac = Mac::new();
    mac.lived_in();
    let (before, was) = (mac.tools.settled(), mac.found());
    mac.apply(&mac.set()).unwrap();
    mac.proxy.off().unwrap();
    let steps = mac.restore(&was);
    mac.apply(&steps).unwrap();
    let after = mac.tools.settled();
    assert_eq!(after["network"][1], before["network"][1], "the corporate proxy");
    assert_eq!(after["network"][2]["bypass"], json!([]));
    assert_eq!(mac.restore(&was), [], "a host that was never set can't be taken out");
}

#[test]
fn one_service_that_went_away_or_has_a_password_costs_no_other() {
    let mac = Mac::new();
    mac.found();
    let steps = mac.set();
    mac.tools.change(|state| drop(state["network"].as_array_mut().unwrap().remove(1)));
    mac.apply(&steps).unwrap();
    assert_eq!(mac.found().len(), 3);
    assert_eq!(mac.set(), []);
    mac.tools.set("fail", json!([{ "args": "^-getwebproxy Corp", "code": 4 }]));
    assert_eq!(mac.found().len(), 2, "gone since it was listed");
    mac.tools.set("fail", json!([{ "args": "^-getwebproxy Corp" }]));
    mac.proxy.read().unwrap_err();
    let secret = ProxySetting { on: true, authenticated: true, ..ProxySetting::default() };
    let service = NetworkService { https: secret, ..NetworkService::default() };
    assert_eq!(mac.proxy.set(EDGE.into(), &[], &[], &[service]), []);
}

/// As for some 100 ms after wake, or when a VPN comes up.
#[test]
fn a_network_that_is_just_being_rebuilt_is_waited_for() {
    let mac = Mac::new();
    let unready = |n: u32| mac.tools.change(|state| state["unready"] = json!(n));
    let all = mac.found();
    unready(2);
    assert_eq!(mac.found(), all);
    let steps = mac.set();
    unready(2);
    mac.apply(&steps).unwrap();
    assert_eq!(mac.set(), []);
    unready(1);
    assert_eq!(mac.proxy.off_where_it_leads_to(EDGE.into(), false).unwrap().len(), 3);
    // It is listed still: nobody can tell what it is set to.
    mac.tools.set("fail", json!([{ "args": "^-getwebproxy Corp", "code": 8, "text": "** Error" }]));
    mac.proxy.read().unwrap_err();
}

/// Whoever waits has patience for a run, not for each service.
#[test]
fn services_that_answer_nothing_keep_no_other_waiting() {
    let mac = Mac::new();
    mac.apply(&mac.set()).unwrap();
    let text = "** Error: Unable to find item in network database.";
    let answer = |args: &str| json!([{ "args": args, "code": 8, "text": text }]);
    mac.tools.set("fail", answer("^-[gs]et.*proxy.* (Wi-Fi|Corp VPN)"));
    let began = Instant::now();
    mac.proxy.off_where_it_leads_to(EDGE.into(), true).unwrap_err();
    assert!(began.elapsed() < 2 * network::SETTLES, "{:?}", began.elapsed());
    let state = mac.tools.state();
    assert_eq!(state["network"][3]["secure"]["on"], false, "{state:#}");
    // The first in the list can't be read, the others can.
    mac.tools.set("fail", answer("^-get.*proxy.* Wi-Fi"));
    let (found, unread) = mac.proxy.read_in_part().unwrap();
    assert_eq!((found.len(), unread), (3, vec!["Wi-Fi".to_owned()]));
    mac.proxy.read().unwrap_err();
}

#[test]
fn an_error_that_ends_with_0_is_one_all_the_same() {
    let mac = Mac::new();
    let steps = mac.set();
    for (args, text) in [
        ("^-getwebproxy Wi-Fi", "** Error: The parameters were not valid."),
        ("^-getwebproxy Wi-Fi", "something new"),
        ("^-getautoproxyurl Wi-Fi", "something new"),
    ] {
        mac.tools.set("fail", json!([{ "args": args, "code": 0, "text": text }]));
        mac.proxy.read().expect_err(text);
    }
    let refused = "** Error: Command requires admin privileges.";
    mac.tools.set("fail", json!([{ "args": "^-setwebproxy ", "code": 0, "text": refused }]));
    let failed = mac.apply(&steps).unwrap_err();
    assert!(failed.to_string().contains("requires admin"), "{failed}");
}

/// The proxies for HTTP and HTTPS would come before SOCKS, and a PAC before them.
#[test]
fn a_service_that_has_a_way_of_its_own_is_left_alone() {
    let mac = Mac::new();
    mac.found();
    mac.apply(&mac.set()).unwrap();
    mac.tools.change(|state| {
        state["network"][1]["socks"] = json!({ "on": true, "server": "127.0.0.1", "port": 1080 });
    });
    // As an earlier version left it, which led it all the same.
    let steps = mac.set();
    mac.apply(&steps).unwrap();
    assert_eq!(mac.proxy.leads_to(), [""; 0]);
    assert_eq!(mac.proxy.other_way(), Some("a SOCKS proxy"));
    assert_eq!(mac.set(), []);
    let state = crate::setup::SystemState::default();
    let (_, ours) = state.claim(EDGE.into(), mac.found());
    assert!(!ours.iter().any(|s| s.name == "Wi-Fi"), "{ours:?}");
}

#[test]
fn a_service_that_was_disabled_since_is_put_back_too() {
    let mac = Mac::new();
    mac.lived_in();
    let (before, was) = (mac.tools.settled(), mac.found());
    let disable = |on: bool| mac.tools.change(|state| state["network"][1]["on"] = json!(on));
    mac.apply(&mac.set()).unwrap();
    disable(false);
    mac.apply(&mac.restore(&was)).unwrap();
    disable(true);
    assert_eq!(mac.tools.settled()["network"][1], before["network"][1]);
    // And so it goes off.
    mac.apply(&mac.set()).unwrap();
    disable(false);
    assert!(mac.proxy.off().unwrap().unwrap().contains(&"Wi-Fi".to_owned()));
    assert_eq!(mac.tools.state()["network"][1]["secure"]["on"], false);
    let wanted = mac.proxy.read_those(&|_, _| true).unwrap().unwrap();
    assert!(!wanted.iter().any(|s| s.disabled || s.name == "Wi-Fi"), "{wanted:?}");
}

#[test]
fn off_is_off_everywhere_though_one_refuses() {
    let mac = Mac::new();
    mac.apply(&mac.set()).unwrap();
    mac.tools.set("fail", json!([{ "args": "proxystate Wi-Fi off" }]));
    mac.proxy.off().unwrap_err();
    let on = |s: &NetworkService| s.http.on || s.https.on;
    let still: Vec<_> = mac.found().into_iter().filter(on).map(|s| s.name).collect();
    assert_eq!(still, ["Wi-Fi"]);
    mac.tools.set("fail", json!([]));
    let off = mac.proxy.off().unwrap().unwrap();
    assert_eq!(off, ["USB 10/100/1000 LAN 2", "Wi-Fi", "Corp VPN (1)", "Thunderbolt Bridge"]);
    assert_eq!(mac.proxy.leads_to(), [""; 0]);
    mac.tools.set("admin", false);
    let refused = mac.proxy.off().unwrap_err().to_string();
    assert!(refused.contains("requires admin privileges. (exit 14)"), "{refused}");
}
