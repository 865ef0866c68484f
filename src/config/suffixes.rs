//! Names whose subdomains are not one owner's. A wildcard over one would have us stand for a large part of
//! the web.

/// Top-level names that nobody registers under: they are of the network at hand.
const PRIVATE: [&str; 11] = [
    "corp",
    "example",
    "home",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localhost",
    "private",
    "test",
];

/// What registries put under the names of countries.
const REGISTRIES: [&str; 18] = [
    "ac", "co", "com", "edu", "go", "gob", "gouv", "gov", "govt", "ltd", "mil", "ne", "net", "nom",
    "or", "org", "plc", "sch",
];

/// `com`, `co.uk`. By their form: the list of all of them has thousands, and changes.
pub(super) fn is_shared(name: &str) -> bool {
    let is = |names: &[&str], label: &str| names.iter().any(|n| n.eq_ignore_ascii_case(label));
    match name.rsplit_once('.') {
        None => !is(&PRIVATE, name),
        Some((below, country)) => country.len() == 2 && is(&REGISTRIES, below),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_their_form() {
        for shared in ["com", "ai", "dev", "co.uk", "COM.au", "or.jp", "gov.br"] {
            assert!(is_shared(shared), "{shared}");
        }
        for own in ["example.com", "x.ai", "corp", "LAN", "home.arpa", "co.example.com", "a.co.uk"]
        {
            assert!(!is_shared(own), "{own}");
        }
    }
}
