use super::*;

fn from_file(text: &str) -> Loaded {
    load_from(Some((Path::new("c.toml"), text)), |_| None, &[])
}

#[test]
fn the_documented_file_is_the_default_layer() {
    let loaded = load_from(None, |_| None, &[]);
    assert_eq!(loaded.problems, []);
    assert_eq!(loaded.values.len(), KEYS.len());
    assert_eq!(loaded.config.edge.port, 8081);
    assert!(loaded.config.meter.is_metered("api.anthropic.com", 443));
    assert!(!loaded.config.meter.is_metered("example.com", 443));
    for cloud in [
        "bedrock-runtime.eu-west-1.amazonaws.com",
        "us-east5-aiplatform.googleapis.com",
        "corp.openai.azure.com",
        "api.individual.githubcopilot.com",
        "aws-external-anthropic.us-east-1.api.aws",
        "claude.googleapis.com",
        "bedrock-runtime-fips.us-gov-west-1.amazonaws.com",
        "corp.cognitiveservices.azure.com",
        "api.eu.mistral.ai",
    ] {
        assert!(loaded.config.meter.is_metered(cloud, 443), "{cloud}");
    }
    assert!(!loaded.config.meter.is_metered("s3.eu-west-1.amazonaws.com", 443));
}

#[test]
fn precedence_and_origin() {
    let file = "[edge]\nport = 1001\n[daemon]\napi_port = 1002\n[log]\nlevel = \"debug\"\n";
    let env = |v: &str| match v {
        "HALTON_METER_DAEMON_API_PORT" => Some("2002".to_owned()),
        "HALTON_METER_LOG_LEVEL" => Some("error".to_owned()),
        _ => None,
    };
    let flags = ["log.level=trace".to_owned()];
    let loaded = load_from(Some((Path::new("c.toml"), file)), env, &flags);
    assert_eq!(loaded.problems, []);
    let origins: BTreeMap<_, _> =
        loaded.values.iter().map(|(k, _, o)| (k.name, o.to_string())).collect();
    assert_eq!(origins["edge.port"], "c.toml:2");
    assert_eq!(origins["daemon.api_port"], "$HALTON_METER_DAEMON_API_PORT");
    assert_eq!(origins["log.level"], "flag");
    assert_eq!(origins["upstream.proxy"], "default");
    assert_eq!(loaded.config.edge.port, 1001);
    assert_eq!(loaded.config.daemon.api_port, 2002);
    assert_eq!(loaded.config.log.level, slog::Level::Trace);
}

#[test]
fn wrong_values_name_their_line_and_leave_the_default() {
    let loaded = from_file(
        "[edge]\nport = 99999\nprot = 1\n[daemon]\n\nedge_health_ttl_ms = \"x\"\n[nope]\na = 1\n",
    );
    let text: Vec<_> = loaded.problems.iter().map(ToString::to_string).collect();
    assert_eq!(text.len(), 4, "{text:?}");
    assert!(text.contains(&"c.toml:2: edge.port: expected a port from 1 to 65535".to_owned()));
    assert!(text.contains(&"c.toml:3: unknown key edge.prot (did you mean edge.port?)".to_owned()));
    assert!(text.contains(
        &"c.toml:6: daemon.edge_health_ttl_ms: expected a number from 50 to 60000".to_owned()
    ));
    assert!(text.iter().any(|t| t.starts_with("c.toml:8: unknown key nope.a")));
    assert_eq!(loaded.config.edge.port, 8081);
}

#[test]
fn a_path_is_absolute_or_made_so_where_its_user_works() {
    let of = |path: &str| from_file(&format!("[upstream]\nextra_ca_file = {path:?}\n"));
    for bad in ["corp.pem", "./corp.pem", "~/corp.pem"] {
        let loaded = of(bad);
        let said =
            "c.toml:2: upstream.extra_ca_file: expected the absolute path of a PEM file, or \"\"";
        assert_eq!(loaded.problems.iter().map(ToString::to_string).collect::<Vec<_>>(), [said]);
        assert_eq!(loaded.config.upstream.extra_ca_file, None);
    }
    assert_eq!(of("").problems, []);
    assert_eq!(of("/corp.pem").config.upstream.extra_ca_file, Some("/corp.pem".into()));

    let key = Key::find("upstream.extra_ca_file").unwrap();
    let here = std::env::current_dir().unwrap().join("corp.pem").display().to_string();
    assert_eq!(key.accept_here("corp.pem"), Some(Value::Text(here)));
    assert_eq!(key.accept_here(""), Some(Value::Text(String::new())));
    assert_eq!(key.accept_here("~/corp.pem"), None);
    let level = Key::find("log.level").unwrap();
    assert_eq!(level.accept_here("info"), Some(Value::Text("info".to_owned())));
}

/// Our CA would stand for all of them.
#[test]
fn a_wildcard_over_other_peoples_names_is_refused_with_the_form_that_is_not() {
    for wide in ["*", "*.com", "*.dev:8443", "*.co.uk", "*.com.au"] {
        for key in ["hosts", "extra_hosts"] {
            let text = format!("[meter]\n{key} = [\"api.example.com\", {wide:?}]\n");
            let loaded = load_from(Some((Path::new("c.toml"), &text)), |_| None, &[]);
            let said: Vec<_> = loaded.problems.iter().map(ToString::to_string).collect();
            assert_eq!(said.len(), 1, "{wide}: {said:?}");
            let start = format!("c.toml:2: meter.{key}: {wide:?} won't do: expected a list");
            assert!(said[0].starts_with(&start), "{said:?}");
            assert!(said[0].contains("\"*.example.com\" for subdomains"), "{said:?}");
            assert!(!loaded.config.meter.is_metered("shop.com", 443), "{wide}");
            assert!(loaded.config.meter.is_metered("api.example.com", 443), "the rest of it");
        }
    }
    let hosts = Key::find("meter.extra_hosts").unwrap();
    for own in ["*.example.com", "*.llm.co.uk", "*.corp", "*.acme", "*.x.ai:8443", "com"] {
        assert!(hosts.accept_text(own).is_some(), "{own}");
    }
}

#[test]
fn a_list_is_taken_with_commas_and_as_an_array() {
    let list = |items: &[&str]| {
        Some(Value::List(items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>()))
    };
    let hosts = Key::find("meter.extra_hosts").unwrap();
    for text in
        ["a.test,b.test", " a.test , b.test,", r#"["a.test", "b.test"]"#, "['a.test','b.test']"]
    {
        assert_eq!(hosts.accept_text(text), list(&["a.test", "b.test"]), "{text}");
    }
    assert_eq!(hosts.accept_text(""), list(&[]));
    assert_eq!(hosts.accept_text("[]"), list(&[]));
    for bad in [r#"["a.test""#, "[1]", r#"["a b"]"#] {
        assert_eq!(hosts.accept_text(bad), None, "{bad}");
    }
    let places = Key::find("meter.plain_hosts").unwrap();
    assert_eq!(places.accept_text("[::1]:80"), list(&["[::1]:80"]));
}

#[test]
fn broken_toml_names_its_line() {
    let loaded = from_file("[edge]\nport = \n");
    assert_eq!(loaded.problems.len(), 1);
    assert!(
        loaded.problems[0].to_string().starts_with("c.toml:2: not TOML"),
        "{:?}",
        loaded.problems
    );
    assert_eq!(loaded.config.edge.port, 8081);
}

#[test]
fn of_equal_ports_the_daemons_gives_way() {
    let ports = |text: &str, flags: &[String]| {
        let loaded = load_from(Some((Path::new("c.toml"), text)), |_| None, flags);
        assert_eq!(loaded.problems.len(), 1, "{:?}", loaded.problems);
        let (_, api, origin) =
            loaded.values.into_iter().find(|(k, ..)| k.name == "daemon.api_port").unwrap();
        assert_eq!(api, Value::Int(loaded.config.daemon.api_port.into()));
        (loaded.config.edge.port, loaded.config.daemon.api_port, origin.to_string())
    };
    let of_file = |text: &str| ports(text, &[]);
    let default = || "default".to_owned();
    assert_eq!(of_file("[daemon]\napi_port = 8081\n"), (8081, 8765, default()));
    assert_eq!(of_file("[edge]\nport = 8765\n"), (8765, 8766, default()));
    assert_eq!(of_file("[edge]\nport = 9\n[daemon]\napi_port = 9\n"), (9, 8765, default()));
    let flag = ["daemon.api_port=8081".to_owned()];
    let below = "c.toml:2".to_owned();
    assert_eq!(ports("[daemon]\napi_port = 9\n", &flag), (8081, 9, below));
}

#[test]
fn a_line_in_another_encoding_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    std::fs::write(&file, b"# f\xfcr mich\n[edge]\nport = 1001\n").unwrap();
    let loaded = load(&file, &[]);
    let said: Vec<_> = loaded.problems.iter().map(ToString::to_string).collect();
    assert_eq!(said, [format!("{}:1: not UTF-8", file.display())]);
    assert_eq!(loaded.config.edge.port, 1001);
}

#[test]
fn plain_http_goes_the_same_way_unless_it_is_set_apart() {
    let ways = |text: &str| {
        let upstream = from_file(&format!("[upstream]\n{text}")).config.upstream;
        [443, 80, 8080].map(|port| {
            let place = |proxy: Option<&UpstreamProxy>| proxy.map(UpstreamProxy::place);
            (place(upstream.proxy_for("x", port)), place(upstream.forwards_to("x", port)))
        })
    };
    let [p, c] = ["p:1", "c:2"].map(|place| Some(place.to_owned()));
    let all = |tunnel: &Option<String>, plain: &Option<String>| {
        [tunnel, plain, tunnel].map(|tunnel| (tunnel.clone(), plain.clone()))
    };
    assert_eq!(ways("proxy = \"http://p:1\""), all(&p, &p));
    assert_eq!(ways("proxy = \"http://p:1\"\nhttp_proxy = \"http://c:2\""), all(&p, &c));
    assert_eq!(ways("proxy = \"http://p:1\"\nhttp_proxy = \"direct\""), all(&p, &None));
    assert_eq!(ways("http_proxy = \"http://c:2\""), all(&None, &c));
    let circle = from_file("[upstream]\nhttp_proxy = \"http://localhost:8081\"\n");
    let upstream = circle.config.upstream;
    assert_eq!((circle.problems.len(), upstream.http_proxy, upstream.http_apart), (1, None, false));
    let apart = |text: &str| from_file(&format!("[upstream]\n{text}")).config.upstream.http_apart;
    assert!(!apart("proxy = \"http://p:1\"") && apart("http_proxy = \"direct\""));
}

#[test]
fn a_proxy_that_is_ourselves_is_refused() {
    let loaded = from_file("[upstream]\nproxy = \"http://localhost:8081\"\n");
    assert_eq!(loaded.problems.len(), 1);
    assert_eq!(loaded.config.upstream.proxy, None);
    let real = "[upstream]\nproxy = \"http://real:3128\"\n";
    let ours = ["upstream.proxy=http://127.0.0.1:8081".to_owned()];
    let loaded = load_from(Some((Path::new("c.toml"), real)), |_| None, &ours);
    assert_eq!(loaded.problems.len(), 1);
    assert_eq!(loaded.config.upstream.proxy.unwrap().host, "real", "the value below");
    assert_eq!(from_file("[upstream]\nproxy = \"http://localhost:3128\"\n").problems, []);
    for spelled in ["0.0.0.0", "127.1", "[::ffff:127.0.0.1]", "localhost.", "[::]", "a.localhost"] {
        for port in [8081, 8765] {
            let file = format!("[upstream]\nproxy = \"http://{spelled}:{port}\"\n");
            let loaded = from_file(&file);
            assert_eq!((loaded.problems.len(), loaded.config.upstream.proxy), (1, None), "{file}");
        }
    }
}

#[test]
fn no_proxy_at_all_is_not_a_host_of_that_name() {
    for word in ["direct", "DIRECT", "none", "Off"] {
        let loaded = from_file(&format!("[upstream]\nproxy = \"{word}\"\n"));
        let said: Vec<_> = loaded.problems.iter().map(ToString::to_string).collect();
        assert!(said.len() == 1 && said[0].ends_with("or \"\" for none"), "{word}: {said:?}");
    }
    let of = |word: &str| from_file(&format!("[upstream]\nhttp_proxy = \"{word}\"\n"));
    let direct = of("DIRECT");
    assert_eq!((direct.problems.len(), direct.config.upstream.http_proxy), (0, None));
    assert!(direct.config.upstream.http_apart);
    assert_eq!(of("none").problems.len(), 1);
}

#[test]
fn the_systems_proxy_is_told_from_a_chosen_one() {
    let of_system = |loaded: &Loaded| loaded.config.upstream.proxy.as_ref().map(|p| p.from_system);
    let file = "[upstream]\nproxy = \"http://a:1\"\nproxy_from = \"system\"\n";
    assert_eq!(of_system(&from_file(file)), Some(true));
    assert_eq!(of_system(&from_file("[upstream]\nproxy = \"http://a:1\"\n")), Some(false));
    let chosen = ["upstream.proxy=http://b:1".to_owned()];
    let loaded = load_from(Some((Path::new("c.toml"), file)), |_| None, &chosen);
    assert_eq!(of_system(&loaded), Some(false));
    assert_eq!(from_file("[upstream]\nproxy_from = \"me\"\n").problems.len(), 1);
}

#[test]
fn exact_connect_rule_wins_over_the_star() {
    let loaded = from_file(
        "[upstream]\nconnect = { \"*:443\" = \"127.0.0.1:1\", \"z.org:443\" = \"127.0.0.1:2\" }\n",
    );
    assert_eq!(loaded.config.upstream.connect_override("z.org", 443).unwrap().port(), 2);
    assert_eq!(loaded.config.upstream.connect_override("y.org", 443).unwrap().port(), 1);
    assert_eq!(loaded.config.upstream.connect_override("y.org", 80), None);
}
