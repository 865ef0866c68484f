use rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::config::SELFTEST_HOST;

fn hosts(list: &[&str]) -> Vec<HostPattern> {
    list.iter().map(|h| HostPattern::parse(h).unwrap()).collect()
}

fn log() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

fn home() -> (tempfile::TempDir, Home) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("h"));
    home.create().unwrap();
    (dir, home)
}

#[test]
fn made_once_then_loaded() {
    let (_dir, home) = home();
    let list = hosts(&["api.example.com", "*.models.example", "127.0.0.1:8443", "[::1]:8443"]);
    let made = Ca::load_or_create(&home, &list, &log()).unwrap();
    let loaded = Ca::load_or_create(&home, &list, &log()).unwrap();
    assert_eq!(made.certificate(), loaded.certificate());
    for file in [home.ca_key(), home.ca_cert()] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    fs::set_permissions(home.ca_key(), fs::Permissions::from_mode(0o644)).unwrap();
    Ca::load_or_create(&home, &list, &log()).unwrap();
    assert_eq!(fs::metadata(home.ca_key()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn only_metered_hosts_are_covered() {
    let (_dir, home) = home();
    let list = hosts(&["api.example.com", "*.models.example", "127.0.0.1:8443"]);
    let ca = Ca::load_or_create(&home, &list, &log()).unwrap();
    for yes in
        ["api.example.com", "API.example.com.", "a.models.example", "127.0.0.1", SELFTEST_HOST]
    {
        ca.server_config(yes, Some(b"h2")).unwrap();
    }
    for no in ["www.example.com", "example.com", "evil.test", "127.0.0.2", "::1"] {
        let end = ca.server_config(no, None);
        assert!(matches!(end, Err(CaError::NotCovered(_))), "{no}");
    }
    assert!(matches!(ca.server_config("a\u{e9}.example", None), Err(CaError::BadName)));
}

#[test]
fn without_addresses_on_the_list_no_address_is_covered() {
    let (_dir, home) = home();
    let ca = Ca::load_or_create(&home, &hosts(&["api.example.com"]), &log()).unwrap();
    for no in ["127.0.0.1", "::1"] {
        assert!(matches!(ca.server_config(no, None), Err(CaError::NotCovered(_))), "{no}");
    }
}

#[test]
fn configurations_are_kept_by_name_and_protocol() {
    let (_dir, home) = home();
    let ca = Ca::load_or_create(&home, &hosts(&["*.example.com"]), &log()).unwrap();
    let one = ca.server_config("a.example.com", Some(b"h2")).unwrap();
    assert!(Arc::ptr_eq(&one, &ca.server_config("A.example.com", Some(b"h2")).unwrap()));
    assert_eq!(one.alpn_protocols, [b"h2".to_vec()]);
    let none = ca.server_config("a.example.com", None).unwrap();
    assert!(none.alpn_protocols.is_empty() && none.ticketer.enabled());
    // A day later, and after a clock step back, there is a new leaf.
    let now = SystemTime::now();
    for at in [now + Duration::from_secs(25 * 3600), now - Duration::from_secs(7200)] {
        let later = ca.leaves.config(&ca, "a.example.com", Some(b"h2"), at).unwrap();
        assert!(!Arc::ptr_eq(&one, &later));
    }
    // Years later the CA itself has expired: better raw than a certificate nobody accepts.
    let late = now + Duration::from_secs(6 * 365 * 24 * 3600);
    assert!(matches!(
        ca.leaves.config(&ca, "a.example.com", None, late),
        Err(CaError::NotValidNow)
    ));
    assert!(matches!(ca.examine(&[], late).unwrap(), Some(Unfit::Expired)));
}

#[test]
fn a_longer_host_list_makes_a_new_authority_and_keeps_the_old_certificate() {
    let (_dir, home) = home();
    let old = Ca::load_or_create(&home, &hosts(&["a.example"]), &log()).unwrap();
    let new = Ca::load_or_create(&home, &hosts(&["a.example", "b.example"]), &log()).unwrap();
    assert_ne!(old.certificate(), new.certificate());
    new.server_config("b.example", None).unwrap();
    let kept: Vec<_> = fs::read_dir(home.ca_dir())
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with("retired-"))
        .collect();
    let [kept] = &kept[..] else { panic!("{kept:?}") };
    assert_eq!(&CertificateDer::from_pem_file(kept).unwrap(), old.certificate());
    // A shorter list is still covered: nothing changes.
    let same = Ca::load_or_create(&home, &hosts(&["b.example"]), &log()).unwrap();
    assert_eq!(same.certificate(), new.certificate());
}

#[test]
fn damaged_foreign_and_unconstrained_authorities_are_replaced() {
    let list = hosts(&["a.example"]);
    let damage: [&dyn Fn(&Home); 4] = [
        &|home| fs::write(home.ca_key(), "garbage").unwrap(),
        &|home| fs::write(home.ca_cert(), "").unwrap(),
        &|home| fs::remove_file(home.ca_key()).unwrap(),
        &|home| {
            let key = KeyPair::generate().unwrap();
            fs::write(home.ca_key(), key.serialize_pem()).unwrap();
        },
    ];
    for spoil in damage {
        let (_dir, home) = home();
        let old = Ca::load_or_create(&home, &list, &log()).unwrap();
        spoil(&home);
        let new = Ca::load_or_create(&home, &list, &log()).unwrap();
        assert_ne!(old.certificate(), new.certificate());
        new.server_config("a.example", None).unwrap();
        assert!(KeyPair::from_pem(&fs::read_to_string(home.ca_key()).unwrap()).is_ok());
    }
    let (_dir, home) = home();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    fs::write(home.ca_cert(), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(home.ca_key(), key.serialize_pem()).unwrap();
    let ca = Ca::load_or_create(&home, &list, &log()).unwrap();
    assert!(ca.server_config("evil.test", None).is_err());
}

#[test]
fn one_of_an_earlier_version_without_the_self_tests_host_stays() {
    let (_dir, home) = home();
    let list = hosts(&["a.example"]);
    assert_eq!(inspect(&home, &list).unwrap().unwrap_err(), "there is none yet");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.name_constraints = Some(rcgen::NameConstraints {
        permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("a.example".to_owned())],
        excluded_subtrees: vec![
            rcgen::GeneralSubtree::IpAddress(rcgen::CidrSubnet::from_v4_prefix([0; 4], 0)),
            rcgen::GeneralSubtree::IpAddress(rcgen::CidrSubnet::from_v6_prefix([0; 16], 0)),
        ],
    });
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    fs::write(home.ca_cert(), certificate.pem()).unwrap();
    fs::write(home.ca_key(), key.serialize_pem()).unwrap();
    // Programs trust it: a test is no reason to take it from them.
    let ca = Ca::load_or_create(&home, &list, &log()).unwrap();
    assert_eq!(ca.certificate(), certificate.der());
    let found = inspect(&home, &list).unwrap().unwrap();
    assert_eq!((found.unfit, found.covers_selftest), (None, false));
    let longer = inspect(&home, &hosts(&["a.example", "b.example"])).unwrap().unwrap();
    assert!(longer.unfit.unwrap().contains("does not cover"));
}

#[test]
fn a_stolen_key_cannot_impersonate_another_host() {
    let (_dir, home) = home();
    let ca = Ca::load_or_create(&home, &hosts(&["api.example.com"]), &log()).unwrap();
    let now = SystemTime::now();
    // Signed with the CA's own key, without any of our checks; also with a metered name beside it.
    for names in [&["bank.test"][..], &["api.example.com", "bank.test"]] {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let (leaf, key) = make::leaf(&ca.issuer, &names, now, RENEW_BEFORE).unwrap();
        assert!(matches!(key, PrivateKeyDer::Pkcs8(_)));
        for name in &names {
            assert!(ca.verify(&leaf, name, now).is_err(), "{name}");
        }
    }
}

#[test]
fn the_bundle_holds_system_roots_and_ours_and_is_written_once() {
    let (_dir, home) = home();
    let ca = Ca::load_or_create(&home, &hosts(&["a.example"]), &log()).unwrap();
    let bundle = ca.write_bundle(&home, &[]).unwrap();
    assert!(bundle.written && bundle.roots > 0);
    assert!(!ca.write_bundle(&home, &[]).unwrap().written);
    let read = crate::meter::trust::read_certificates(&home.ca_bundle());
    assert_eq!(read.len(), bundle.roots + 1);
    assert_eq!(read.last(), Some(ca.certificate()));
    assert_eq!(fs::metadata(home.ca_bundle()).unwrap().permissions().mode() & 0o777, 0o600);
}
