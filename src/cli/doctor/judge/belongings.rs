//! The home directory and what is kept in it.

use super::super::super::client::Settings;
use super::super::facts::{Facts, Says};
use super::{Finding, Fix, RESTART, or_ok};

const SOON: i64 = 45;

pub(super) fn home(f: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(problem) = &f.home_problem {
        let next = "make it a directory of yours that you can write to, or set HALTON_METER_HOME";
        found.push(Finding::degraded("home", problem).next(next));
    }
    for path in &f.wide {
        let what = format!("{} can be read or written by others", path.display());
        let next = format!("chmod go= {}", path.display());
        found.push(Finding::degraded("home", what).next(next).fix(Fix::Tighten(path.clone())));
    }
    for path in &f.stale {
        let what =
            format!("{} was left by a process that is gone; it does no harm", path.display());
        found.push(Finding::ok("home", what).fix(Fix::Remove(path.clone())));
    }
    or_ok(found, "home", || f.home.display().to_string())
}

pub(super) fn config(f: &Facts) -> Vec<Finding> {
    let next = "mend it; `halton-meter config check` checks";
    let wrong = f.config_problems.iter().map(|p| Finding::degraded("config", p).next(next));
    let unread = match f.settings {
        Settings::InForce => None,
        Settings::Refused => {
            let what =
                "the edge finds a mistake in it that is none here: in a variable of its own, maybe";
            Some(Finding::degraded("config", what).next("logs/edge.err.log in the home names it"))
        }
        Settings::Unread => {
            let what = "the edge has not read it since it was edited";
            Some(Finding::degraded("config", what).next(RESTART))
        }
    };
    // What runs looks at these itself.
    let own = f.own_problems.iter().map(|p| Finding::degraded("config", p).next(next));
    let stray = |s| Finding::ok("config", s).next("unset it, or mend its name");
    let strays = f.strays.iter().map(stray);
    or_ok(wrong.chain(unread).chain(own).chain(strays).collect(), "config", || {
        "no mistakes".to_owned()
    })
}

pub(super) fn ca(f: &Facts) -> Vec<Finding> {
    if f.untouched {
        return vec![Finding::skipped("ca", "none yet; the first start makes it")];
    }
    let mut found = Vec::new();
    match &f.ca.problem {
        // As `uninstall --graceful` leaves it. Nobody signs with it, and that is said of the daemon.
        Some(why) if f.says == Says::Down => {
            let what = format!("not in use: {why}; the next start makes another one");
            found.push(Finding::skipped("ca", what));
        }
        Some(why) => {
            let what = format!("the certificate authority can't be used: {why}");
            found.push(Finding::degraded("ca", what).next(RESTART));
        }
        None if f.ca.days_left < SOON => {
            let what = format!("expires in {} days; a new one is made before", f.ca.days_left);
            found.push(Finding::ok("ca", what));
        }
        None => {}
    }
    if f.ca.next_waits && f.ca.problem.is_none() {
        let what = "a next CA waits for the programs that know only this one";
        found.push(Finding::ok("ca", what).next("`halton-meter ca rotate` goes on"));
    }
    if f.ca.other_in_daemon {
        let what = "the daemon signs with another CA than the one in its home: programs refuse it";
        found.push(Finding::broken("ca", what).next(RESTART).fix(Fix::Bundle));
    }
    // Without a CA there is nothing that it could hold.
    if !f.ca.bundle_holds && f.ca.problem.is_none() {
        let what = "the bundle does not hold our CA: programs refuse our certificates";
        let next = "`halton-meter doctor --fix` writes it again";
        found.push(Finding::broken("ca", what).next(next).fix(Fix::Bundle));
    }
    or_ok(found, "ca", || format!("good for {} days, and in the bundle", f.ca.days_left))
}

pub(super) fn bodies(f: &Facts) -> Vec<Finding> {
    let said = f.bodies.as_deref().unwrap_or("bodies are not kept");
    vec![Finding::ok("bodies", said)]
}

pub(super) fn token(f: &Facts) -> Vec<Finding> {
    vec![match (&f.token, f.daemon.pid) {
        (_, None) => Finding::skipped("token", "no daemon to ask"),
        (Some(why), _) => Finding::degraded("token", why).next(RESTART),
        (None, _) => Finding::ok("token", "the daemon takes it"),
    }]
}
