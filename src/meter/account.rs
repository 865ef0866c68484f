//! Whose limits a response told: a short name for an account that leads back to nobody.
//!
//! It is a hash, salted with random bytes that never leave the home directory, of what the provider
//! calls the organization or the account, or else of a key that lasts. Tokens that are renewed every
//! hour or so (OAuth, JWT) would make a new account each time: they name none.

use std::fs;
use std::io;
use std::sync::OnceLock;

use uuid::Uuid;

use super::http::Headers;
use crate::digest::sha256;
use crate::home::{Home, write_atomic};

type Salt = [u8; 16];

static SALT: OnceLock<Salt> = OnceLock::new();

/// Reads the salt of this home, or makes one. Until then no account has a name.
///
/// # Errors
/// When the file can't be read or written.
pub fn prepare(home: &Home) -> io::Result<()> {
    let path = home.account_salt();
    let found = match fs::read(&path) {
        Ok(bytes) => Salt::try_from(bytes).ok(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    let salt = match found {
        Some(salt) => salt,
        None => {
            let fresh = Uuid::new_v4().into_bytes();
            write_atomic(&path, &fresh)?;
            fresh
        }
    };
    // A daemon has one home.
    let _ = SALT.set(salt);
    Ok(())
}

/// The account that a request was for, as far as its own headers tell.
#[must_use]
pub fn of_request(headers: &Headers) -> Option<String> {
    name(SALT.get()?, asking(headers)?)
}

/// The account that answered.
#[must_use]
pub fn of_response(headers: &Headers) -> Option<String> {
    name(SALT.get()?, answering(headers)?)
}

fn answering(headers: &Headers) -> Option<&str> {
    ["anthropic-organization-id", "openai-organization"].iter().find_map(|h| headers.get(h))
}

fn asking(headers: &Headers) -> Option<&str> {
    let named = ["chatgpt-account-id", "openai-organization"];
    let keys = ["x-api-key", "x-goog-api-key", "api-key"];
    let bearer = headers.get("authorization").and_then(|value| {
        let (_, token) = value.split_once(' ')?;
        lasts(token.trim()).then(|| token.trim())
    });
    let of = |names: &[&str]| names.iter().find_map(|h| headers.get(h));
    of(&named).or_else(|| of(&keys)).or(bearer).filter(|text| !text.is_empty())
}

/// Keys and personal tokens do; what OAuth hands out does not.
fn lasts(token: &str) -> bool {
    let lasting = ["sk-", "github_pat_", "ghp_", "gho_", "gsk_", "xai-"];
    lasting.iter().any(|start| token.starts_with(start)) && !token.starts_with("sk-ant-oat")
}

fn name(salt: &Salt, what: &str) -> Option<String> {
    let hash = sha256(&[&salt[..], what.as_bytes()].concat());
    let (short, _) = hash.split_first_chunk()?;
    Some(format!("{:08x}", u32::from_be_bytes(*short)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().copied().collect()
    }

    #[test]
    fn an_account_is_told_by_what_lasts() {
        for (pairs, expected) in [
            (
                &[("chatgpt-account-id", "acc"), ("authorization", "Bearer eyJ.x.y")][..],
                Some("acc"),
            ),
            (&[("authorization", "Bearer eyJ.x.y")], None),
            (&[("authorization", "Bearer ya29.x")], None),
            (&[("authorization", "Bearer sk-ant-oat01-x")], None),
            (&[("authorization", "Bearer sk-x")], Some("sk-x")),
            (&[("authorization", "Bearer github_pat_11x")], Some("github_pat_11x")),
            (&[("x-api-key", "sk-ant-api03-x")], Some("sk-ant-api03-x")),
            (&[("x-api-key", "")], None),
            (&[], None),
        ] {
            assert_eq!(asking(&headers(pairs)), expected, "{pairs:?}");
        }
        assert_eq!(answering(&headers(&[("anthropic-organization-id", "o")])), Some("o"));
    }

    #[test]
    fn names_are_short_apart_and_of_this_home() {
        let name = |salt, what| name(&salt, what).unwrap();
        let one = name([1; 16], "a");
        assert_eq!(one.len(), 8);
        assert_eq!(one, name([1; 16], "a"));
        assert_ne!(one, name([1; 16], "b"));
        assert_ne!(one, name([2; 16], "a"));
        // SHA-256 of the salt and the text.
        assert_eq!(name([0; 16], ""), "374708ff");
    }

    #[test]
    fn the_salt_stays_the_same_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("h"));
        home.create().unwrap();
        prepare(&home).unwrap();
        let first = fs::read(home.account_salt()).unwrap();
        prepare(&home).unwrap();
        assert_eq!(fs::read(home.account_salt()).unwrap(), first);
        assert_eq!(first.len(), 16);
        let mode = fs::metadata(home.account_salt()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
