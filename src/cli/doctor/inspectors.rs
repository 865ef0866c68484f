//! Roots of products that read TLS traffic, known by the names that they give themselves. To trust one is
//! no fault: it is how such a network works. But a user should know who reads along.

use rustls::pki_types::CertificateDer;

/// What is in the subject of a root, in lower case, and what people call it.
const KNOWN: [(&str, &str); 33] = [
    ("zscaler", "Zscaler"),
    ("netskope", "Netskope"),
    ("goskope", "Netskope"),
    ("palo alto", "Palo Alto Networks"),
    ("fortinet", "Fortinet"),
    ("fortigate", "Fortinet"),
    ("cisco umbrella", "Cisco Umbrella"),
    ("forcepoint", "Forcepoint"),
    ("websense", "Forcepoint"),
    ("blue coat", "Blue Coat"),
    ("skyhigh", "Skyhigh"),
    ("mcafee web gateway", "McAfee Web Gateway"),
    ("sophos", "Sophos"),
    ("check point", "Check Point"),
    ("cloudflare gateway", "Cloudflare Gateway (WARP)"),
    ("gateway ca - cloudflare", "Cloudflare Gateway (WARP)"),
    ("cloudflare for teams", "Cloudflare Gateway (WARP)"),
    ("iboss", "iboss"),
    ("barracuda", "Barracuda"),
    ("menlo security", "Menlo Security"),
    ("cato networks", "Cato Networks"),
    ("watchguard", "WatchGuard"),
    ("kaspersky", "Kaspersky"),
    ("eset ssl filter", "ESET"),
    ("avast", "Avast"),
    ("bitdefender", "Bitdefender"),
    ("adguard", "AdGuard"),
    ("portswigger", "Burp"),
    ("mitmproxy", "mitmproxy"),
    ("charles proxy", "Charles"),
    ("fiddler", "Fiddler"),
    ("proxyman", "Proxyman"),
    ("http toolkit", "HTTP Toolkit"),
];

/// Who of them is among these roots, each once.
#[must_use]
pub fn among(roots: &[CertificateDer<'_>]) -> Vec<&'static str> {
    let mut found: Vec<_> = roots.iter().filter_map(|root| known(&subject(root)?)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn known(subject: &str) -> Option<&'static str> {
    let subject = subject.to_lowercase();
    KNOWN.iter().find(|(word, _)| subject.contains(word)).map(|(_, name)| *name)
}

fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.subject().to_string())
}

/// Seconds since 1970 until which it is valid.
#[must_use]
pub fn not_after(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.validity().not_after.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(name: &str) -> CertificateDer<'static> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn inspectors_are_known_by_their_names_and_nobody_else() {
        let roots =
            ["Zscaler Root CA", "ISRG Root X1", "Zscaler Intermediate", "mitmproxy", "DigiCert"];
        let roots: Vec<_> = roots.into_iter().map(root).collect();
        assert_eq!(among(&roots), ["Zscaler", "mitmproxy"]);
        assert!(not_after(&roots[0]).is_some());
        assert_eq!(among(&[CertificateDer::from(vec![1, 2, 3])]), [""; 0]);
    }

    #[test]
    fn the_words_are_in_lower_case() {
        assert!(KNOWN.iter().all(|(word, _)| *word == word.to_lowercase()));
    }
}
