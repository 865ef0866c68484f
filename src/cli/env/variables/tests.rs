use super::*;
use crate::config::{HostPattern, PlacePattern};

/// Where unions can be written.
fn variables(
    present: &Vars,
    edge: SocketAddr,
    home: &Home,
    direct: &Direct,
    union: &dyn Fn(&Home, &Path) -> Option<PathBuf>,
) -> Vars {
    super::variables(present, edge, home, direct, &|home, own| Ok(union(home, own))).unwrap()
}

fn map(items: &[(&str, &str)]) -> Vars {
    items.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn every_variable_of_the_contract_is_set() {
    let home = Home::at("/h");
    let vars =
        variables(&map(&[]), ([127, 0, 0, 1], 8081).into(), &home, &Direct::default(), &|_, _| {
            None
        });
    assert_eq!(vars["https_proxy"], "http://127.0.0.1:8081");
    assert_eq!(vars["NO_PROXY"], "localhost,127.0.0.1,::1,127.0.0.0/8,0.0.0.0,::");
    for name in CA_VARS {
        assert_eq!(vars[name], "/h/ca/bundle.pem", "{name}");
    }
    assert_eq!(vars[NODE_PROXY_VAR], "1");
    let present = map(&[("GIT_SSL_CAINFO", "/h/ca/bundle.pem")]);
    let vars =
        variables(&present, ([127, 0, 0, 1], 8081).into(), &home, &Direct::default(), &|_, _| None);
    assert!(FORMER_VARS.iter().all(|name| !vars.contains_key(*name)));
}

#[test]
fn what_the_user_had_is_kept() {
    let home = Home::at("/h");
    let present = map(&[
        ("no_proxy", "corp.example, localhost"),
        ("SSL_CERT_FILE", "/corp.pem"),
        ("CURL_CA_BUNDLE", "/unreadable.pem"),
        ("AWS_CA_BUNDLE", "/h/ca/bundle.pem"),
    ]);
    let union = |_: &Home, own: &Path| {
        (own == Path::new("/corp.pem")).then(|| PathBuf::from("/h/ca/union-corp.pem"))
    };
    let vars =
        variables(&present, ([127, 0, 0, 1], 8081).into(), &home, &Direct::default(), &union);
    assert_eq!(vars["NO_PROXY"], "corp.example,localhost,127.0.0.1,::1,127.0.0.0/8,0.0.0.0,::");
    assert_eq!(vars["SSL_CERT_FILE"], "/h/ca/union-corp.pem");
    assert!(!vars.contains_key("CURL_CA_BUNDLE"));
    assert_eq!(vars["AWS_CA_BUNDLE"], "/h/ca/bundle.pem");
}

#[test]
fn where_a_union_can_t_be_written_nothing_leads_to_us() {
    let home = Home::at("/h");
    let full = |_: &Home, _: &Path| Err(CaError::NoRoots);
    let of =
        |present: &Vars| super::variables(present, EDGE.into(), &home, &Direct::default(), &full);
    assert!(of(&map(&[("SSL_CERT_FILE", "/corp.pem")])).is_err());
    let inner = [("CURL_CA_BUNDLE", "/h/ca/bundle.pem"), ("HALTON_WAS_CURL_CA_BUNDLE", "/c.pem")];
    assert!(of(&map(&inner)).is_err());
    assert!(of(&map(&[])).is_ok(), "none is needed");
}

#[test]
fn our_own_proxy_is_not_foreign() {
    let edge = ([127, 0, 0, 1], 8081).into();
    let (ours, local) = ("http://127.0.0.1:8081", "http://localhost:8081/");
    let (corp, plain, socks) = ("http://proxy.corp:3128", "http://cache:3142", "socks5://p:1080");
    for (present, expected) in [
        (&[("HTTPS_PROXY", ours)][..], [None, None]),
        (&[("https_proxy", local), ("http_proxy", local)], [None, None]),
        (&[("https_proxy", corp)], [Some(corp), None]),
        (&[("http_proxy", plain)], [None, Some(plain)]),
        (&[("HTTP_PROXY", plain), ("HTTPS_PROXY", "")], [None, Some(plain)]),
        (&[("ALL_PROXY", socks)], [Some(socks), Some(socks)]),
        (&[("ALL_PROXY", socks), ("HTTP_PROXY", plain)], [Some(socks), Some(plain)]),
        (&[("all_proxy", socks), ("https_proxy", corp)], [Some(corp), Some(socks)]),
    ] {
        assert_eq!(foreign_proxies(&map(present), edge), expected, "{present:?}");
    }
}

const EDGE: ([u8; 4], u16) = ([127, 0, 0, 1], 8081);
const NEAR: [&str; 3] = [".local", "10.0.0.0/8", "192.168.0.0/16"];

#[test]
fn what_is_near_is_reached_without_us() {
    let home = Home::at("/h");
    let mut config = crate::config::load_from(None, |_| None, &[]).config;
    let rules = |present: &Vars, direct: &Direct| {
        let vars = variables(present, EDGE.into(), &home, direct, &union);
        let inner = with(present, &vars);
        assert_eq!(variables(&inner, EDGE.into(), &home, direct, &union), vars);
        // Also by whoever knows another configuration.
        assert_eq!(taken_back(&inner, EDGE.into()), *present, "{vars:?}");
        let other = Direct { known: &NEAR, now: vec![] };
        let other = variables(&inner, EDGE.into(), &home, &other, &union);
        assert!(!other["NO_PROXY"].contains("192.168"), "{other:?}");
        vars["NO_PROXY"].clone()
    };
    let direct = Direct::of(&NEAR, &config, false);
    let local = "localhost,127.0.0.1,::1,127.0.0.0/8,0.0.0.0,::";
    assert_eq!(rules(&map(&[]), &direct), format!("{local},.local,10.0.0.0/8,192.168.0.0/16"));
    let own = map(&[("no_proxy", "10.0.0.0/8")]);
    assert_eq!(rules(&own, &direct), format!("10.0.0.0/8,{local},.local,192.168.0.0/16"));
    // Who has a proxy reaches them through it, for all we know.
    assert_eq!(rules(&map(&[("ALL_PROXY", "http://p:1")]), &direct), local);
    assert_eq!(rules(&map(&[]), &Direct::of(&NEAR, &config, true)), local);
    // What is metered by its name or address has to come by.
    config.meter.plain.push(PlacePattern::parse("10.1.2.3:11434").unwrap());
    config.meter.hosts.push(HostPattern::parse("*.gpu.local").unwrap());
    let direct = Direct::of(&NEAR, &config, false);
    assert_eq!(rules(&map(&[]), &direct), format!("{local},192.168.0.0/16"));
    // As an earlier version set it.
    let set = variables(&own, EDGE.into(), &home, &Direct::default(), &union);
    let mut former = with(&own, &set);
    for name in NO_PROXY_VARS {
        former.insert(name.to_owned(), "10.0.0.0/8,localhost,127.0.0.1,::1".to_owned());
    }
    assert_eq!(variables(&former, EDGE.into(), &home, &Direct::default(), &union), set);
    // Elsewhere it is the user's own.
    let mut inner = with(&own, &variables(&own, EDGE.into(), &home, &Direct::default(), &union));
    inner.insert("NO_PROXY".to_owned(), format!("10.0.0.0/8,{local},.local"));
    let again = variables(&inner, EDGE.into(), &home, &Direct::default(), &union);
    assert_eq!(again["HALTON_WAS_NO_PROXY"], inner["NO_PROXY"]);
}

/// A real one makes unions of what is no union only.
fn union(_: &Home, file: &Path) -> Option<PathBuf> {
    let name = file.file_name()?.to_str()?;
    match file.parent()?.to_str()? {
        "/etc" => Some(PathBuf::from(format!("/h/ca/union-{name}"))),
        "/h/ca" if name.starts_with("union") => Some(file.to_path_buf()),
        _ => None,
    }
}

fn shell() -> Vars {
    map(&[
        ("https_proxy", "http://me:s3cret@proxy.corp:3128"),
        ("NO_PROXY", "corp.example, localhost"),
        ("CURL_CA_BUNDLE", "/etc/corp.pem"),
        ("SSL_CERT_FILE", "/gone.pem"),
        ("NODE_USE_ENV_PROXY", "1"),
        ("AWS_CA_BUNDLE", ""),
    ])
}

/// The environment of a program that gets `vars`.
fn with(present: &Vars, vars: &Vars) -> Vars {
    present.clone().into_iter().chain(vars.clone()).collect()
}

fn taken_back(present: &Vars, edge: SocketAddr) -> Vars {
    let home = Home::at("/h");
    let union = |file: &Path| file.starts_with("/h/ca") && file != home.ca_bundle();
    let mut left = present.clone();
    for (name, value) in Environment::new(present, &home, &[edge], &NEAR).taken_back(&union) {
        match value {
            Some(value) => left.insert(name, value),
            None => left.remove(&name),
        };
    }
    left
}

#[test]
fn in_an_environment_of_ours_everything_stays_as_it_is() {
    let home = Home::at("/h");
    for present in [map(&[]), shell()] {
        let vars = variables(&present, EDGE.into(), &home, &Direct::default(), &union);
        let inner = with(&present, &vars);
        assert_eq!(variables(&inner, EDGE.into(), &home, &Direct::default(), &union), vars);
        // The edge has moved.
        let moved =
            variables(&inner, ([127, 0, 0, 1], 8082).into(), &home, &Direct::default(), &union);
        assert_eq!(moved["https_proxy"], "http://127.0.0.1:8082");
        assert_eq!(moved.get("HALTON_WAS_https_proxy"), present.get("https_proxy"));
        assert_eq!(moved["NO_PROXY"], vars["NO_PROXY"]);
    }
    let vars = variables(&shell(), EDGE.into(), &home, &Direct::default(), &union);
    assert_eq!(vars["CURL_CA_BUNDLE"], "/h/ca/union-corp.pem");
    assert!(!vars.contains_key("SSL_CERT_FILE") && !vars.contains_key("HALTON_WAS_SSL_CERT_FILE"));
}

#[test]
fn a_union_stays_also_where_its_origin_is_gone_or_unknown() {
    let home = Home::at("/h");
    let of = |was: &str, file: &str| {
        let present = map(&[("CURL_CA_BUNDLE", file), ("HALTON_WAS_CURL_CA_BUNDLE", was)]);
        variables(&present, EDGE.into(), &home, &Direct::default(), &union)["CURL_CA_BUNDLE"]
            .clone()
    };
    assert_eq!(of("/gone.pem", "/h/ca/union-corp.pem"), "/h/ca/union-corp.pem");
    assert_eq!(of("", "/h/ca/union-corp.pem"), "/h/ca/union-corp.pem");
    assert_eq!(of("/gone.pem", "/h/ca/bundle.pem"), "/h/ca/bundle.pem");
    assert_eq!(of("/etc/other.pem", "/h/ca/bundle.pem"), "/h/ca/union-other.pem");
    let session = map(&[("CURL_CA_BUNDLE", "/h/ca/union-corp.pem")]);
    assert_eq!(taken_back(&session, EDGE.into()), session);
}

#[test]
fn what_is_taken_back_leaves_what_the_user_had() {
    let home = Home::at("/h");
    for present in [map(&[]), shell()] {
        let vars = variables(&present, EDGE.into(), &home, &Direct::default(), &union);
        let mut had = present.clone();
        // As good as not set, where we set something.
        had.retain(|_, value| !value.is_empty());
        assert_eq!(taken_back(&with(&present, &vars), EDGE.into()), had);
        let moved = ([127, 0, 0, 1], 8082).into();
        assert_eq!(taken_back(&with(&present, &vars), moved), had, "known by the note");
        assert_eq!(taken_back(&present, EDGE.into()), present, "nothing of ours in it");
    }
}

#[test]
fn what_the_user_sets_later_is_theirs() {
    let home = Home::at("/h");
    let mut now =
        with(&shell(), &variables(&shell(), EDGE.into(), &home, &Direct::default(), &union));
    now.insert("NO_PROXY".to_owned(), "later.example".to_owned());
    now.insert("CURL_CA_BUNDLE".to_owned(), "/etc/later.pem".to_owned());
    now.remove("https_proxy");
    let left = taken_back(&now, EDGE.into());
    assert_eq!(left["NO_PROXY"], "later.example");
    assert_eq!(left["CURL_CA_BUNDLE"], "/etc/later.pem");
    assert!(!left.contains_key("https_proxy"));
    let again = variables(&now, EDGE.into(), &home, &Direct::default(), &union);
    assert_eq!(again["CURL_CA_BUNDLE"], "/h/ca/union-later.pem");
    assert_eq!(again["HALTON_WAS_CURL_CA_BUNDLE"], "/etc/later.pem");
    assert_eq!(again["HALTON_WAS_https_proxy"], "");
}
