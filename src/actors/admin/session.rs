//! Sessions of the dashboard: a page in the user's browser that may read, and nothing else.
//!
//! `halton-meter dashboard` gets a code with the token and hands it to the browser behind the `#` of an
//! address, which no server and no log sees. It is good once, for a minute. The page exchanges it for two
//! secrets: a cookie that no script can read, and a key that it sends as a header. A browser sends cookies
//! of 127.0.0.1 to every port, so to every program that serves pages here; the key belongs to this origin
//! alone. And no foreign page can make a browser send that header.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::auth::Token;

/// Name of the cookie, and of the header with the key.
pub const COOKIE: &str = "halton_session";
pub const KEY_HEADER: &str = "x-halton-key";

/// How long a code may lie about, and how long a session lives.
pub const CODE_LIFE: Duration = Duration::from_secs(60);
pub const SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);
/// At once; the oldest makes room.
const CODES: usize = 8;
const SESSIONS: usize = 16;

/// See the module. In memory only: a new daemon wants a new login.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    codes: Vec<(Token, Instant)>,
    sessions: Vec<Session>,
}

#[derive(Debug)]
struct Session {
    cookie: Token,
    key: Token,
    ends: Instant,
}

/// What a browser gets once.
pub struct Login {
    pub cookie: String,
    pub key: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login")
    }
}

impl Sessions {
    /// A code that can be exchanged for a session, once.
    pub fn code(&self, now: Instant) -> io::Result<String> {
        let code = Token::random()?;
        let said = code.said().to_owned();
        let mut state = self.state(now);
        if state.codes.len() >= CODES {
            state.codes.remove(0);
        }
        state.codes.push((code, now + CODE_LIFE));
        Ok(said)
    }

    /// `None`: no such code, or not any more.
    pub fn login(&self, code: &str, now: Instant) -> io::Result<Option<Login>> {
        let (cookie, key) = (Token::random()?, Token::random()?);
        let mut state = self.state(now);
        let Some(at) = state.codes.iter().position(|(known, _)| known.is(code)) else {
            return Ok(None);
        };
        state.codes.remove(at);
        if state.sessions.len() >= SESSIONS {
            state.sessions.remove(0);
        }
        let login = Login { cookie: cookie.said().to_owned(), key: key.said().to_owned() };
        state.sessions.push(Session { cookie, key, ends: now + SESSION_LIFE });
        Ok(Some(login))
    }

    /// Whether these two belong together and have not ended.
    pub fn knows(&self, cookie: &str, key: &str, now: Instant) -> bool {
        // All of them, so that the time says nothing.
        self.state(now)
            .sessions
            .iter()
            .fold(false, |known, s| known | (s.cookie.is(cookie) & s.key.is(key)))
    }

    pub fn logout(&self, cookie: &str, now: Instant) {
        self.state(now).sessions.retain(|session| !session.cookie.is(cookie));
    }

    /// Without what has ended.
    fn state(&self, now: Instant) -> MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.codes.retain(|(_, ends)| now < *ends);
        state.sessions.retain(|session| now < session.ends);
        state
    }
}

/// Our cookie's value in a `Cookie` field.
#[must_use]
pub fn cookie(field: &str) -> Option<&str> {
    field.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE).then_some(value)
    })
}

/// `Set-Cookie` of a login; without a value it takes the cookie away.
#[must_use]
pub fn set_cookie(value: Option<&str>) -> String {
    let age = if value.is_some() { SESSION_LIFE.as_secs() } else { 0 };
    let value = value.unwrap_or_default();
    format!("{COOKIE}={value}; HttpOnly; SameSite=Strict; Path=/; Max-Age={age}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_good_once_and_for_a_minute() {
        let sessions = Sessions::default();
        let now = Instant::now();
        let code = sessions.code(now).unwrap();
        assert!(sessions.login("", now).unwrap().is_none());
        assert!(sessions.login(&code[1..], now).unwrap().is_none());
        assert!(sessions.login(&code, now).unwrap().is_some());
        assert!(sessions.login(&code, now).unwrap().is_none(), "a second time");
        let late = sessions.code(now).unwrap();
        assert!(sessions.login(&late, now + CODE_LIFE).unwrap().is_none());
    }

    #[test]
    fn a_session_needs_both_halves_and_ends() {
        let sessions = Sessions::default();
        let now = Instant::now();
        let login = || {
            let code = sessions.code(now).unwrap();
            sessions.login(&code, now).unwrap().unwrap()
        };
        let (one, two) = (login(), login());
        assert!(sessions.knows(&one.cookie, &one.key, now));
        for (cookie, key) in [
            (one.cookie.as_str(), ""),
            ("", one.key.as_str()),
            (&one.cookie, &two.key),
            (&one.key, &one.cookie),
        ] {
            assert!(!sessions.knows(cookie, key, now));
        }
        assert!(!sessions.knows(&one.cookie, &one.key, now + SESSION_LIFE));
        let sessions = Sessions::default();
        let code = sessions.code(now).unwrap();
        let one = sessions.login(&code, now).unwrap().unwrap();
        sessions.logout("other", now);
        assert!(sessions.knows(&one.cookie, &one.key, now));
        sessions.logout(&one.cookie, now);
        assert!(!sessions.knows(&one.cookie, &one.key, now));
    }

    #[test]
    fn codes_and_sessions_are_bounded() {
        let sessions = Sessions::default();
        let now = Instant::now();
        let codes: Vec<_> = (0..=CODES).map(|_| sessions.code(now).unwrap()).collect();
        assert!(sessions.login(&codes[0], now).unwrap().is_none());
        assert!(sessions.login(&codes[1], now).unwrap().is_some());
        for _ in 0..2 * SESSIONS {
            let code = sessions.code(now).unwrap();
            sessions.login(&code, now).unwrap().unwrap();
        }
        assert_eq!(sessions.state(now).sessions.len(), SESSIONS);
    }

    #[test]
    fn cookies_are_read_by_their_whole_name() {
        assert_eq!(cookie("a=b; halton_session=abc"), Some("abc"));
        assert_eq!(cookie("halton_session=abc;x"), Some("abc"));
        for not in ["", "halton_session", "xhalton_session=abc", "halton_session2=abc"] {
            assert_eq!(cookie(not), None, "{not}");
        }
        let set = set_cookie(Some("abc"));
        assert!(set.starts_with("halton_session=abc; HttpOnly; SameSite=Strict; Path=/; Max-Age="));
        assert!(set_cookie(None).ends_with("Max-Age=0"));
    }
}
