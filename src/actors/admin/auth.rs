//! Who may ask: programs of this user on this machine, not pages of a browser.
//!
//! The port is open to every local program and, by DNS rebinding or a plain form, to every web page.
//! So: Host must name this machine, Origin too if there is one, and everything but `/health` needs
//! the token that only this user can read. No CORS header is ever sent. The dashboard's page has a
//! session instead, which can only read ([`super::session`]).

use std::fs;
use std::io;

use subtle::ConstantTimeEq;

use super::dashboard;
use super::problem::Problem;
use crate::home::{Home, write_atomic};

/// The bearer token of the admin API: 32 random bytes in hex.
#[derive(Clone)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// The token of `Home::token_file()`; made when there is none or it is not a token.
    pub fn load_or_create(home: &Home) -> io::Result<Self> {
        let path = home.token_file();
        match fs::read_to_string(&path) {
            Ok(text) if is_token(text.trim()) && is_private(&path) => {
                return Ok(Self(text.trim().to_owned()));
            }
            Ok(_) => {}
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {}
            Err(e) => return Err(e),
        }
        let token = Self::random()?;
        token.write(home)?;
        Ok(token)
    }

    /// To where commands read it.
    pub fn write(&self, home: &Home) -> io::Result<()> {
        write_atomic(&home.token_file(), format!("{}\n", self.0).as_bytes())
    }

    /// A token that is nowhere on disk: nobody can use it.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(bytes.iter().map(|b| format!("{b:02x}")).collect()))
    }

    /// Whether this is it, in the same time whatever it is.
    pub(super) fn is(&self, other: &str) -> bool {
        self.0.as_bytes().ct_eq(other.as_bytes()).into()
    }

    /// For the one who is to have it.
    pub(super) fn said(&self) -> &str {
        &self.0
    }

    #[cfg(test)]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// Where sessions begin and end.
pub const SESSION: &str = "/v1/session";

/// The parts of a request that decide.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    pub method: &'a str,
    pub path: &'a str,
    /// The one `Host` field; `None` when there is none, or more than one.
    pub host: Option<&'a str>,
    pub origin: Option<&'a str>,
    pub authorization: Option<&'a str>,
    /// A session of the dashboard's, with both of its halves.
    pub session: bool,
}

/// Who may have an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Who {
    /// It is nobody's secret.
    Anybody,
    /// Token or session were shown.
    User,
}

/// Decides; `port` is the one that we listen on.
pub fn judge(asked: Asked<'_>, token: &Token, port: u16) -> Result<Who, Problem> {
    if !asked.host.is_some_and(|host| is_here(host, port, true)) {
        return Err(Problem::foreign_host());
    }
    if let Some(origin) = asked.origin {
        let authority = origin.strip_prefix("http://");
        // A browser leaves out no port but 80: without one it is a page of another program.
        if !authority.is_some_and(|authority| is_here(authority, port, port == 80)) {
            return Err(Problem::foreign_origin());
        }
    }
    if asked.path == "/health" || dashboard::is_file(asked.path) {
        return Ok(Who::Anybody);
    }
    let reads = matches!(asked.method, "GET" | "HEAD");
    if (asked.method, asked.path) == ("POST", SESSION) {
        // The code is looked at there. A browser says where its page is from.
        let of_a_page = asked.origin.is_some();
        let none = || Problem::foreign_origin().detail("a login needs Origin, as a page sends it");
        return of_a_page.then_some(Who::Anybody).ok_or_else(none);
    }
    if asked.session && asked.authorization.is_none() {
        let may = reads || asked.path == SESSION;
        return may.then_some(Who::User).ok_or_else(Problem::read_only);
    }
    let given = asked.authorization.and_then(|value| {
        let (scheme, rest) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim())
    });
    match given {
        Some(given) if token.is(given) => Ok(Who::User),
        Some(_) | None => Err(Problem::unauthorized()),
    }
}

/// Whether an authority (`host[:port]`) is this machine, on our port; `bare`: it need not say one.
fn is_here(authority: &str, port: u16, bare: bool) -> bool {
    let rest = ["127.0.0.1", "localhost", "[::1]"].into_iter().find_map(|name| {
        let head = authority.get(..name.len())?;
        head.eq_ignore_ascii_case(name).then(|| authority.get(name.len()..))?
    });
    match rest {
        Some("") => bare,
        Some(rest) => rest.strip_prefix(':').is_some_and(|p| p.parse() == Ok(port)),
        None => false,
    }
}

fn is_token(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A token that others could read is no secret any more.
fn is_private(path: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path)
        .is_ok_and(|m| m.mode() & 0o077 == 0 && m.uid() == rustix::process::geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Path, Host, Origin, Authorization, and the status of the refusal.
    type Case<'a> = (&'a str, Option<&'a str>, Option<&'a str>, Option<&'a str>, Option<u16>);

    #[test]
    fn only_this_machine_with_the_token_may_ask() {
        let token = Token::random().unwrap();
        let good = format!("Bearer {}", token.reveal());
        let shortened = good[..good.len() - 1].to_owned();
        let other = format!("Bearer {}", Token::random().unwrap().reveal());
        let ok = None;
        let (host, origin, auth) = (Some(421), Some(403), Some(401));
        let here = "127.0.0.1:8765";
        #[rustfmt::skip]
        let table: &[Case<'_>] = &[
            ("/v1/status", Some(here), None, Some(&good), ok),
            ("/v1/status", Some("localhost:8765"), None, Some(&good), ok),
            ("/v1/status", Some("LocalHost"), None, Some(&good), ok),
            ("/v1/status", Some("[::1]:8765"), None, Some(&good), ok),
            ("/v1/status", Some(here), Some("http://localhost:8765"), Some(&good), ok),
            ("/health", Some(here), None, None, ok),
            ("/", Some(here), None, None, ok),
            ("/dashboard.js", Some(here), None, None, ok),
            // the token
            ("/v1/status", Some(here), None, None, auth),
            ("/readyz", Some(here), None, None, auth),
            ("/health/", Some(here), None, None, auth),
            ("/v1/status", Some(here), None, Some(&other), auth),
            ("/v1/status", Some(here), None, Some(&shortened), auth),
            ("/v1/status", Some(here), None, Some("Bearer "), auth),
            ("/v1/status", Some(here), None, Some("Bearer"), auth),
            ("/v1/status", Some(here), None, Some("Basic Og=="), auth),
            // DNS rebinding
            ("/v1/status", Some("evil.example"), None, Some(&good), host),
            ("/health", Some("evil.example:8765"), None, None, host),
            ("/health", Some("127.0.0.1.evil.example"), None, None, host),
            ("/health", Some("localhost.evil.example:8765"), None, None, host),
            ("/health", Some("127.0.0.1:80"), None, None, host),
            ("/health", Some("user@127.0.0.1"), None, None, host),
            ("/health", Some("127.0.0.1:8765é"), None, None, host),
            ("/health", Some(""), None, None, host),
            ("/health", None, None, None, host),
            // a web page
            ("/health", Some(here), Some("https://evil.example"), None, origin),
            ("/v1/status", Some(here), Some("null"), Some(&good), origin),
            ("/v1/status", Some(here), Some("http://localhost:3000"), Some(&good), origin),
            ("/v1/status", Some(here), Some("http://localhost"), Some(&good), origin),
            ("/v1/status", Some(here), Some("http://127.0.0.1"), Some(&good), origin),
            ("/v1/status", Some(here), Some("http://localhost.evil.example"), Some(&good), origin),
            ("/v1/status", Some(here), Some(""), Some(&good), origin),
        ];
        for (path, host, origin, authorization, want) in table.iter().copied() {
            let asked = Asked { method: "GET", path, host, origin, authorization, session: false };
            let got = judge(asked, &token, 8765).err().map(|p| p.status);
            assert_eq!(got, want, "{asked:?}");
        }
    }

    #[test]
    fn a_session_reads_and_ends_and_nothing_else() {
        let token = Token::random().unwrap();
        let here = Some("127.0.0.1:8765");
        let own = Some("http://127.0.0.1:8765");
        let good = format!("Bearer {}", token.reveal());
        #[rustfmt::skip]
        let table = [
            // method, path, Origin, session, the status of the refusal
            ("GET", "/v1/stats", None, true, None),
            ("GET", "/v1/stats", own, true, None),
            ("HEAD", "/v1/stats", None, true, None),
            ("GET", "/v1/stats", None, false, Some(401)),
            ("GET", "/v1/stats", Some("http://127.0.0.1:3000"), true, Some(403)),
            ("DELETE", "/v1/bypass", own, true, Some(403)),
            ("POST", "/v1/login-codes", own, true, Some(403)),
            ("DELETE", SESSION, own, true, None),
            ("DELETE", SESSION, own, false, Some(401)),
            // The code decides there; without Origin it is no page.
            ("POST", SESSION, own, false, None),
            ("POST", SESSION, None, false, Some(403)),
            ("POST", SESSION, None, true, Some(403)),
            ("POST", SESSION, Some("https://evil.example"), false, Some(403)),
        ];
        for (method, path, origin, session, want) in table {
            let asked = Asked { method, path, host: here, origin, authorization: None, session };
            assert_eq!(judge(asked, &token, 8765).err().map(|p| p.status), want, "{asked:?}");
        }
        let asked = Asked { method: "POST", path: SESSION, host: here, ..Asked::default() };
        let why = judge(asked, &token, 8765).unwrap_err().detail;
        assert!(why.is_some_and(|why| why.contains("needs Origin")), "it is not a foreign one");
        let both = Asked {
            method: "DELETE",
            path: "/v1/bypass",
            host: here,
            authorization: Some(&good),
            session: true,
            ..Asked::default()
        };
        assert!(judge(both, &token, 8765).is_ok(), "the token is no less for a session");
    }

    #[test]
    fn a_token_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("h"));
        home.create().unwrap();
        let first = Token::load_or_create(&home).unwrap();
        let path = home.token_file();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Token::load_or_create(&home).unwrap().reveal(), first.reveal());

        for spoiled in [&b"short"[..], b"", &[0xff; 64], &[b'x'; 64]] {
            write_atomic(&path, spoiled).unwrap();
            let token = Token::load_or_create(&home).unwrap();
            assert!(is_token(token.reveal()));
            assert_eq!(fs::read_to_string(&path).unwrap().trim(), token.reveal());
        }

        let before = Token::load_or_create(&home).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_ne!(Token::load_or_create(&home).unwrap().reveal(), before.reveal());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
