//! Names whose subdomains are not one owner's. A wildcard over one would have us stand for a large part of
//! the web.

/// Any other top-level name is of the network at hand.
const TOP_LEVEL: &str = include_str!("../../config/top-level-names.txt");

/// What registries put under the names of countries.
const REGISTRIES: [&str; 18] = [
    "ac", "co", "com", "edu", "go", "gob", "gouv", "gov", "govt", "ltd", "mil", "ne", "net", "nom",
    "or", "org", "plc", "sch",
];

/// `com`, `co.uk`; below a country by their form: the list of all of those has thousands, and changes.
pub(super) fn is_shared(name: &str) -> bool {
    let is = |names: &[&str], label: &str| names.iter().any(|n| n.eq_ignore_ascii_case(label));
    match name.rsplit_once('.') {
        None => {
            let by_form = name.len() == 2 || name.get(..4).is_some_and(|p| is(&["xn--"], p));
            by_form || TOP_LEVEL.lines().any(|known| known.eq_ignore_ascii_case(name))
        }
        Some((below, country)) => country.len() == 2 && is(&REGISTRIES, below),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_their_form() {
        for shared in
            ["com", "ai", "DEV", "app", "museum", "xn--p1ai", "co.uk", "COM.au", "or.jp", "gov.br"]
        {
            assert!(is_shared(shared), "{shared}");
        }
        for own in [
            "example.com",
            "x.ai",
            "corp",
            "LAN",
            "home.arpa",
            "co.example.com",
            "a.co.uk",
            "localdomain",
            "acme",
            "internal",
            "test",
        ] {
            assert!(!is_shared(own), "{own}");
        }
    }
}
