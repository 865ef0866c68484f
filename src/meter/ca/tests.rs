use std::time::Duration;

use rcgen::KeyPair;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CipherSuite, ClientConnection, ServerConnection};

use super::signer::{Found, RENEW_BEFORE};
use super::*;
use crate::config::SELFTEST_HOST;

mod anew;
mod out_of_time;

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
        let later = ca.server_config_at("a.example.com", Some(b"h2"), at).unwrap();
        assert!(!Arc::ptr_eq(&one, &later));
    }
    // Years later the CA itself has expired: better raw than a certificate nobody accepts.
    let late = now + Duration::from_secs(6 * 365 * 24 * 3600);
    let end = ca.server_config_at("a.example.com", None, late);
    assert!(matches!(end, Err(CaError::NotValidNow)));
    assert!(matches!(ca.current.examine(&[], late).unwrap(), Found::Unfit(Unfit::Expired)));
}

/// What a client that offers these, in this order, and the tap agree on.
fn agreed(ca: &Ca, offer: &[CipherSuite]) -> Option<CipherSuite> {
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|suite| offer.contains(&suite.suite()));
    provider.cipher_suites.sort_by_key(|s| offer.iter().position(|o| *o == s.suite()));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.certificate().clone()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "api.example.com";
    let mut client = ClientConnection::new(config.into(), name.try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(ca.server_config(name, None).unwrap()).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut &wire[..]).unwrap();
        server.process_new_packets().unwrap();
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        client.read_tls(&mut &wire[..]).unwrap();
        client.process_new_packets().unwrap();
    }
    client.negotiated_cipher_suite().map(|suite| suite.suite())
}

#[test]
fn the_cheapest_cipher_that_the_client_has_is_taken() {
    use CipherSuite::*;
    let (_dir, home) = home();
    let ca = Ca::load_or_create(&home, &hosts(&["api.example.com"]), &log()).unwrap();
    let all = [TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_AES_128_GCM_SHA256];
    let old = [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
    if leaf::aes_in_hardware() {
        assert_eq!(agreed(&ca, &all), Some(all[2]));
        assert_eq!(agreed(&ca, &old), Some(old[1]));
    } else {
        assert_eq!(agreed(&ca, &all), Some(all[0]));
    }
    for only in all.into_iter().chain(old) {
        assert_eq!(agreed(&ca, &[only]), Some(only));
    }
}

fn retired(home: &Home) -> Vec<CertificateDer<'static>> {
    let files = files(home);
    let retired = files.iter().filter(|p| ![home.ca_cert(), home.next_ca_cert()].contains(p));
    retired.map(|p| CertificateDer::from_pem_file(p).unwrap()).collect()
}

fn issuers(ca: &Ca, name: &str, at: SystemTime) -> &'static str {
    let by = |signer: &Signer| signer.server_config(name, None, at).ok();
    let config = ca.server_config_at(name, None, at).unwrap();
    let is = |signer| by(signer).is_some_and(|theirs| Arc::ptr_eq(&theirs, &config));
    match (is(&ca.current), ca.next.as_ref().is_some_and(is)) {
        (true, _) => "current",
        (false, true) => "next",
        (false, false) => panic!("neither"),
    }
}

#[test]
fn a_longer_host_list_makes_a_next_authority_for_what_the_old_one_cannot_sign() {
    let (_dir, home) = home();
    let old = Ca::load_or_create(&home, &hosts(&["a.example"]), &log()).unwrap();
    let longer = hosts(&["a.example", "b.example"]);
    assert!(inspect(&home, &longer).unwrap().unwrap().unfit.unwrap().contains("does not cover"));
    let both = Ca::load_or_create(&home, &longer, &log()).unwrap();
    // Running programs know the old one only.
    assert_eq!(old.certificate(), both.certificate());
    let now = SystemTime::now();
    assert_eq!(issuers(&both, "a.example", now), "current");
    assert_eq!(issuers(&both, "b.example", now), "next");
    assert!(both.server_config("c.example", None).is_err());
    let found = inspect(&home, &longer).unwrap().unwrap();
    assert_eq!((found.unfit, found.next.as_ref()), (None, both.certificates().next()));
    // Again, from the disk.
    let same = Ca::load_or_create(&home, &longer, &log()).unwrap();
    assert!(same.certificates().eq(both.certificates()) && retired(&home).is_empty());
    // Longer still: the next one is replaced, its certificate stays known.
    let more = hosts(&["a.example", "b.example", "c.example"]);
    let third = Ca::load_or_create(&home, &more, &log()).unwrap();
    assert_eq!(third.certificate(), old.certificate());
    assert_eq!(issuers(&third, "c.example", now), "next");
    assert_eq!(retired(&home), [both.certificates().next().unwrap().clone()]);
}

#[test]
fn a_host_below_one_on_the_list_needs_no_other_authority() {
    let (_dir, home) = home();
    let old = hosts(&["openrouter.ai", "api.fireworks.ai"]);
    let regional = hosts(&["eu.openrouter.ai", "us.openrouter.ai", "us.api.fireworks.ai"]);
    let made = Ca::load_or_create(&home, &old, &log()).unwrap();
    let same = Ca::load_or_create(&home, &[old, regional].concat(), &log()).unwrap();
    assert_eq!(same.certificate(), made.certificate());
    assert!(same.next.is_none());
}

#[test]
fn a_rotation_publishes_first_and_changes_over_then() {
    let (_dir, home) = home();
    let list = hosts(&["a.example"]);
    let load = || Ca::load_or_create(&home, &list, &log()).unwrap();
    let old = load();
    assert!(matches!(rotate::finish(&home, &list), Err(CaError::NoNext)));
    assert_eq!(rotate::waiting(&home), None);
    rotate::begin(&home, &list).unwrap();
    assert!(rotate::waiting(&home).is_some());
    let both = load();
    rotate::begin(&home, &list).unwrap();
    assert!(load().certificates().eq(both.certificates()), "begun twice is begun once");
    assert_eq!(issuers(&both, "a.example", SystemTime::now()), "current");
    both.write_bundle(&home, &[]).unwrap();
    let read = || crate::meter::trust::read_certificates(&home.ca_bundle());
    assert!(both.certificates().all(|c| read().contains(c)));

    rotate::finish(&home, &list).unwrap();
    let new = load();
    assert_eq!(Some(new.certificate()), both.certificates().next());
    assert_eq!((new.certificates().count(), rotate::waiting(&home)), (1, None));
    assert_eq!(retired(&home), [old.certificate().clone()]);
    new.write_bundle(&home, &[]).unwrap();
    assert!(read().contains(new.certificate()) && !read().contains(old.certificate()));
    let system = crate::meter::trust::system_roots(&home);
    assert!(!system.contains(old.certificate()), "the old one is no root of the system's");
}

#[test]
fn a_change_over_that_is_cut_short_is_finished_by_whoever_loads() {
    let list = hosts(&["a.example"]);
    for written in 0..=4 {
        let (_dir, home) = home();
        let old = Ca::load_or_create(&home, &list, &log()).unwrap();
        rotate::begin(&home, &list).unwrap();
        let next = CertificateDer::from_pem_file(home.next_ca_cert()).unwrap();
        let copy = |from: PathBuf, to: PathBuf| {
            fs::copy(from, to).unwrap();
        };
        // What `promote` does, up to a point.
        let steps: [&dyn Fn(); 4] = [
            &|| copy(home.ca_cert(), home.ca_dir().join("retired-1.pem")),
            &|| copy(home.next_ca_key(), home.ca_key()),
            &|| copy(home.next_ca_cert(), home.ca_cert()),
            &|| fs::remove_file(home.next_ca_cert()).unwrap(),
        ];
        steps.iter().take(written).for_each(|step| step());
        let ca = Ca::load_or_create(&home, &list, &log()).unwrap();
        ca.server_config("a.example", None).unwrap();
        if written < 2 {
            assert_eq!(ca.certificate(), old.certificate(), "{written}: not begun");
        } else {
            assert_eq!(ca.certificate(), &next, "{written}: gone through with");
            assert!(retired(&home).contains(old.certificate()), "{written}");
        }
        // And from any of these a rotation comes to its end.
        rotate::begin(&home, &list).unwrap();
        rotate::finish(&home, &list).unwrap();
        let last = Ca::load_or_create(&home, &list, &log()).unwrap();
        assert_ne!(last.certificate(), old.certificate(), "{written}");
        last.server_config("a.example", None).unwrap();
    }
}

#[test]
fn one_that_expires_soon_gets_a_next_one_which_takes_over_in_time() {
    let (_dir, home) = home();
    let list = hosts(&["a.example"]);
    let day = Duration::from_secs(24 * 3600);
    let life = 5 * 365 * day;
    // Made long ago, so that it has twenty days, or one, to go.
    for (left, signs) in [(20 * day, "old"), (day, "new")] {
        Place::current(&home).clear().unwrap();
        Place::next(&home).clear().unwrap();
        let made = SystemTime::now() - life + left;
        let old = Signer::create(&Place::current(&home), &list, made).unwrap();
        let ca = Ca::load_or_create(&home, &list, &log()).unwrap();
        assert_eq!(ca.certificate() == old.certificate(), signs == "old", "{left:?}");
        assert_eq!(ca.next.is_some(), signs == "old", "{left:?}");
        ca.server_config("a.example", None).unwrap();
        if let Some(next) = &ca.next {
            assert!(!matches!(
                Signer::load(&Place::next(&home), &list, SystemTime::now() + 25 * day).unwrap(),
                Found::Limited(..)
            ));
            // The present one gives out: the next one signs without a file being touched.
            let late = SystemTime::now() + left + day;
            assert_eq!(issuers(&ca, "a.example", late), "next");
            assert_eq!(next.certificate(), ca.certificates().next().unwrap());
        }
    }
}

#[test]
fn unions_get_both_certificates_and_keep_what_is_theirs() {
    let (dir, home) = home();
    let list = hosts(&["a.example"]);
    let own = dir.path().join("corp.pem");
    fs::write(&own, "# ours at Corp\nTHEIRS").unwrap();
    assert_eq!(union_bundle(&home, &own).unwrap(), None, "nothing to unite with yet");
    let pem = |path: PathBuf| fs::read_to_string(path).unwrap().trim().to_owned();
    Ca::load_or_create(&home, &list, &log()).unwrap();
    let old = pem(home.ca_cert());
    let union = union_bundle(&home, &own).unwrap().unwrap();
    let text = || fs::read_to_string(&union).unwrap();
    let made_of = format!("# made of {}", own.display());
    assert_eq!(text(), format!("{made_of}\n# ours at Corp\nTHEIRS\n{old}\n"));
    rotate::begin(&home, &list).unwrap();
    let rewrite = || {
        let ca = Ca::load_or_create(&home, &list, &log()).unwrap();
        ca.write_bundle(&home, &[]).unwrap();
    };
    rewrite();
    let next = pem(home.next_ca_cert());
    assert_eq!(text(), format!("{made_of}\n# ours at Corp\nTHEIRS\n{old}\n{next}\n"));
    assert_eq!(union_bundle(&home, &own).unwrap().as_ref(), Some(&union));
    // Of a shell that was led here when its origin was there.
    fs::write(&union, format!("# ours at Corp\nTHEIRS\n{old}\n")).unwrap();
    assert_eq!(union_bundle(&home, &union).unwrap().as_ref(), Some(&union));
    assert_eq!(text(), format!("# ours at Corp\nTHEIRS\n{old}\n{next}\n"));
    let bundle = union_bundle(&home, &home.ca_bundle()).unwrap();
    assert_eq!(bundle, None, "no roots of the user's");
    rotate::finish(&home, &list).unwrap();
    rewrite();
    assert_eq!(text(), format!("# ours at Corp\nTHEIRS\n{next}\n"));
    assert_eq!(union_bundle(&home, &dir.path().join("none")).unwrap(), None);
    // As on a full disk.
    fs::remove_file(&union).unwrap();
    fs::create_dir(&union).unwrap();
    assert!(union_bundle(&home, &own).is_err(), "its own roots alone would not do");
}

#[test]
fn a_union_follows_what_it_was_made_of_and_each_has_its_own() {
    let (dir, home) = home();
    Ca::load_or_create(&home, &hosts(&["a.example"]), &log()).unwrap();
    let ours = fs::read_to_string(home.ca_cert()).unwrap();
    let root =
        |name: &str| format!("-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----");
    fs::create_dir(dir.path().join("a")).unwrap();
    let [one, two] = ["a-b.pem", "a/b.pem"].map(|name| dir.path().join(name));
    fs::write(&one, root("ONE")).unwrap();
    fs::write(&two, root("TWO")).unwrap();
    let unions = [&one, &two].map(|own| union_bundle(&home, own).unwrap().unwrap());
    assert_ne!(unions[0], unions[1]);
    let text = |n: usize| fs::read_to_string(&unions[n]).unwrap();
    assert!(text(0).contains("ONE") && text(1).contains("TWO") && text(1).contains(ours.trim()));
    assert!(unions.iter().all(|union| is_union(&home, union)));

    fs::write(&one, root("NEW")).unwrap();
    fs::remove_file(&two).unwrap();
    renew_unions(&home);
    assert!(text(0).contains("NEW") && !text(0).contains("ONE") && text(0).contains(ours.trim()));
    assert_eq!(text(0).matches("# made of").count(), 1);
    assert!(text(1).contains("TWO"), "its origin is gone");
    // One that is just being written.
    fs::write(&one, &root("HALF")[..40]).unwrap();
    renew_unions(&home);
    assert!(text(0).contains("NEW"));
    // Of an earlier version.
    let former = home.ca_dir().join("union-a-b.pem");
    fs::write(&former, root("ONE")).unwrap();
    renew_unions(&home);
    assert_eq!(fs::read_to_string(&former).unwrap(), root("ONE"));
    assert_eq!(union_bundle(&home, &former).unwrap(), Some(former));
}

#[test]
fn what_cannot_be_come_back_to_is_not_named() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let (dir, home) = home();
    Ca::load_or_create(&home, &hosts(&["a.example"]), &log()).unwrap();
    for name in [&b"two\nlines.pem"[..], b"m\xfcller.pem", b"-----BEGIN X-----.pem"] {
        let own = dir.path().join(OsStr::from_bytes(name));
        // Not every file system has such names.
        if fs::write(&own, "THEIRS").is_err() {
            continue;
        }
        let union = union_bundle(&home, &own).unwrap().unwrap();
        let text = fs::read_to_string(&union).unwrap();
        assert!(text.starts_with("THEIRS\n"), "{text}");
    }
    let long = dir.path().join(format!("{}.tmp", "x".repeat(240)));
    fs::write(&long, "THEIRS").unwrap();
    assert!(union_bundle(&home, &long).unwrap().is_some_and(|union| is_union(&home, &union)));
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
        assert_eq!(old.known("a.example"), Known::ToAll, "the first one");
        spoil(&home);
        let there = fs::read(home.ca_cert()).unwrap();
        let new = Ca::load_or_create(&home, &list, &log()).unwrap();
        assert_ne!(old.certificate(), new.certificate());
        let kept = files(&home).into_iter().filter(|file| *file != home.ca_cert());
        let kept: Vec<_> = kept.map(|file| fs::read(file).unwrap()).collect();
        assert_eq!(kept, [there], "whoever trusts it still does");
        assert!(new.known("a.example") != Known::ToAll, "what runs knows the old one");
        new.server_config("a.example", None).unwrap();
        assert!(KeyPair::from_pem(&fs::read_to_string(home.ca_key()).unwrap()).is_ok());
    }
    // One whose time has not come would not do then either.
    for begins in [1975, 2400] {
        let (_dir, home) = home();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(begins, 1, 1);
        let key = KeyPair::generate().unwrap();
        let old = params.self_signed(&key).unwrap();
        fs::write(home.ca_cert(), old.pem()).unwrap();
        fs::write(home.ca_key(), key.serialize_pem()).unwrap();
        let ca = Ca::load_unasked(&home, &list, &log()).unwrap();
        assert!(ca.server_config("evil.test", None).is_err());
        assert_ne!(ca.certificate(), old.der());
    }
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
}

#[test]
fn an_address_is_no_common_name() {
    let (_dir, home) = home();
    let ca = Ca::load_or_create(&home, &hosts(&["127.0.0.1:8443"]), &log()).unwrap();
    let names = ["127.0.0.1".to_owned()];
    let (leaf, _) =
        make::leaf(&ca.current.issuer, &names, SystemTime::now(), RENEW_BEFORE).unwrap();
    let text = names[0].as_bytes();
    assert!(!leaf.windows(text.len()).any(|at| at == text), "as an alternative name it is binary");
}

#[test]
fn a_stolen_key_cannot_impersonate_another_host() {
    let (_dir, home) = home();
    let ca = Ca::load_or_create(&home, &hosts(&["api.example.com"]), &log()).unwrap();
    let now = SystemTime::now();
    // Signed with the CA's own key, without any of our checks; also with a metered name beside it.
    for names in [&["bank.test"][..], &["api.example.com", "bank.test"]] {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let (leaf, key) = make::leaf(&ca.current.issuer, &names, now, RENEW_BEFORE).unwrap();
        assert!(matches!(key, PrivateKeyDer::Pkcs8(_)));
        for name in &names {
            assert!(ca.current.verify(&leaf, name, now).is_err(), "{name}");
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
