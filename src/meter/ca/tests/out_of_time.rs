//! The clock and the CA do not go together.

use super::*;

/// It was made while the clock was ahead, and the clock was set right under whoever holds it.
#[test]
fn one_that_is_not_valid_yet_is_replaced_by_whoever_loads() {
    let (_dir, home) = home();
    let list = hosts(&["a.example"]);
    let now = SystemTime::now();
    let ahead = now + Duration::from_secs(40 * 24 * 3600);
    let current = Signer::create(&Place::current(&home), &list, ahead).unwrap();
    let old = current.certificate().clone();
    let mut held = Ca { current, next: None, anew: None };
    assert!(held.is_valid_at(ahead) && !held.is_valid_at(now));
    assert!(matches!(held.server_config_at("a.example", None, now), Err(CaError::NotValidNow)));
    // A next one can sign what this one can't.
    held.next = Some(Signer::create(&Place::next(&home), &list, now).unwrap());
    assert!(held.is_valid_at(now));
    Place::next(&home).clear().unwrap();

    let new = Ca::load_or_create(&home, &list, &log()).unwrap();
    assert!(new.is_valid_at(SystemTime::now()));
    new.server_config("a.example", None).unwrap();
    assert_eq!(retired(&home), [old]);
}

/// The clock is wrong, and the daemon came back after a crash: it may be set right again.
#[test]
fn one_that_is_out_of_its_time_stays_until_a_command_loads() {
    let (_dir, home) = home();
    let list = hosts(&["a.example"]);
    let now = SystemTime::now();
    let years = Duration::from_secs(11 * 365 * 24 * 3600);
    for made in [now + years, now - years] {
        Place::current(&home).clear().unwrap();
        let old = Signer::create(&Place::current(&home), &list, made).unwrap();
        let kept = Ca::load_unasked(&home, &list, &log()).unwrap();
        assert_eq!(kept.certificate(), old.certificate());
        assert!(!kept.is_valid_at(now) && kept.is_valid_at(made));
        // A next one signs meanwhile, and no more than that.
        let next = Signer::create(&Place::next(&home), &list, now).unwrap();
        let both = Ca::load_unasked(&home, &list, &log()).unwrap();
        assert!(both.certificates().eq([next.certificate(), old.certificate()]));
        assert_eq!(issuers(&both, "a.example", now), "next");
        Place::next(&home).clear().unwrap();
        let new = Ca::load_or_create(&home, &list, &log()).unwrap();
        assert!(new.is_valid_at(now) && new.certificate() != old.certificate());
        let same = Ca::load_unasked(&home, &list, &log()).unwrap();
        assert_eq!(same.certificate(), new.certificate());
    }
}
