//! The certificates themselves: what stands in the CA's and in a leaf.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::CaError;
use crate::config::{HostPattern, SELFTEST_HOST};

const DAY: Duration = Duration::from_secs(24 * 3600);
const AUTHORITY_LIFE: Duration = Duration::from_secs(5 * 365 * 24 * 3600);
/// Clocks of virtual machines and of laptops that wake up jump back.
const BACKDATE: Duration = DAY;
/// Longest common name that X.509 allows.
const MAX_COMMON_NAME: usize = 64;

/// A new self-signed authority for `hosts` and the self-test's, and nothing else.
pub(super) fn authority(
    hosts: &[HostPattern],
    now: SystemTime,
) -> Result<(Certificate, KeyPair), CaError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    // A name of its own for each authority, so that a trust store never mixes up two of them.
    let id: String =
        params.key_identifier(&key).iter().take(4).map(|b| format!("{b:02x}")).collect();
    params.distinguished_name = name(&format!("Halton Meter CA {id}"));
    params.not_before = (now - 2 * BACKDATE).into();
    params.not_after = (now + AUTHORITY_LIFE).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // Name constraints say nothing of code signing or mail; this does.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.name_constraints = Some(constraints(hosts));
    Ok((params.self_signed(&key)?, key))
}

/// A leaf for `names` with a key of its own, valid from a day ago until `life` from now.
pub(super) fn leaf(
    issuer: &Issuer<'_, KeyPair>,
    names: &[String],
    now: SystemTime,
    life: Duration,
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), CaError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.subject_alt_names = names
        .iter()
        .map(|n| match n.parse::<IpAddr>() {
            Ok(ip) => Ok(SanType::IpAddress(ip)),
            Err(_) => n.as_str().try_into().map(SanType::DnsName).map_err(|_| CaError::BadName),
        })
        .collect::<Result<_, _>>()?;
    // Without a name of a host among the alternatives, OpenSSL holds one that looks like it, as IPv4
    // addresses do, against the CA's constraints.
    let fits = |n: &&String| n.len() <= MAX_COMMON_NAME && n.parse::<IpAddr>().is_err();
    let common = names.first().filter(fits);
    params.distinguished_name = name(common.map_or("Halton Meter", String::as_str));
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + life).into();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, issuer)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok((certificate.into(), key))
}

/// A name that the pattern stands for.
pub(super) fn example_name(pattern: &HostPattern) -> String {
    if pattern.covers_subdomains() {
        format!("any.{}", pattern.name())
    } else {
        pattern.name().to_owned()
    }
}

fn constraints(hosts: &[HostPattern]) -> NameConstraints {
    let mut permitted = Vec::new();
    let mut addresses = false;
    for pattern in hosts {
        let subtree = match pattern.name().parse::<IpAddr>() {
            Ok(ip) => {
                addresses = true;
                let prefix = if ip.is_ipv4() { 32 } else { 128 };
                GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(ip, prefix))
            }
            Err(_) => GeneralSubtree::DnsName(pattern.name().to_owned()),
        };
        if !permitted.contains(&subtree) {
            permitted.push(subtree);
        }
    }
    // Also needed as such: a kind of name without any permitted subtree is not constrained at all.
    permitted.push(GeneralSubtree::DnsName(SELFTEST_HOST.to_owned()));
    let excluded = if addresses {
        Vec::new()
    } else {
        vec![
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([0; 4], 0)),
            GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix([0; 16], 0)),
        ]
    };
    NameConstraints { permitted_subtrees: permitted, excluded_subtrees: excluded }
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Halton Meter");
    name.push(DnType::CommonName, common);
    name
}
