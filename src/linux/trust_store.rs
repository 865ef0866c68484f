//! The trust stores of Linux: a directory of anchors, and a tool that makes the file of all roots
//! from it. Which one, the files that are there tell.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::meter::trust::read_certificates;
use crate::setup::{Call, Check, Step};
use crate::trust_store::{Authority, Change, Plan, TrustStore, TrustStoreError};

#[derive(Debug, Eq, PartialEq)]
struct Family {
    name: &'static str,
    anchors: &'static str,
    /// What the tool makes.
    bundle: &'static str,
    tool: &'static str,
    /// Arguments to add, and to take away.
    add: &'static [&'static str],
    remove: &'static [&'static str],
}

/// The more telling directories first: SUSE's tool has the name of Debian's.
const FAMILIES: [Family; 4] = [
    Family {
        name: "SUSE",
        anchors: "/etc/pki/trust/anchors",
        bundle: "/var/lib/ca-certificates/ca-bundle.pem",
        tool: "update-ca-certificates",
        add: &[],
        remove: &[],
    },
    Family {
        name: "Fedora and Red Hat",
        anchors: "/etc/pki/ca-trust/source/anchors",
        bundle: "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        tool: "update-ca-trust",
        add: &["extract"],
        remove: &["extract"],
    },
    Family {
        name: "Arch",
        anchors: "/etc/ca-certificates/trust-source/anchors",
        bundle: "/etc/ca-certificates/extracted/tls-ca-bundle.pem",
        tool: "update-ca-trust",
        add: &[],
        remove: &[],
    },
    Family {
        name: "Debian and Ubuntu",
        anchors: "/usr/local/share/ca-certificates",
        bundle: "/etc/ssl/certs/ca-certificates.crt",
        tool: "update-ca-certificates",
        add: &[],
        // Without it a link to what is gone may stay.
        remove: &["--fresh"],
    },
];

/// The store below `root`, which is `/` but in tests.
#[derive(Clone, Debug)]
pub struct Anchors {
    root: PathBuf,
}

impl Anchors {
    #[must_use]
    pub fn below(root: PathBuf) -> Self {
        Self { root }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

impl TrustStore for Anchors {
    fn plan(&self, change: Change, authorities: &[Authority]) -> Result<Plan, TrustStoreError> {
        let family = FAMILIES.iter().find(|f| self.at(f.anchors).is_dir()).ok_or_else(|| {
            let dirs: Vec<_> = FAMILIES.iter().map(|f| f.anchors).collect();
            TrustStoreError::Unknown(format!("none of {} is here", dirs.join(", ")))
        })?;
        let (anchors, bundle) = (self.at(family.anchors), self.at(family.bundle));
        let trusted = read_certificates(&bundle);
        let steps = match (change, authorities) {
            (Change::Trust, []) => Vec::new(),
            (Change::Trust, [current, ..]) => {
                let is_trusted = trusted.contains(&current.certificate);
                trust(family, current, &anchors, &bundle, is_trusted)
            }
            (Change::Untrust, all) => {
                let there: Vec<_> =
                    all.iter().filter(|a| anchor(&anchors, a).exists()).cloned().collect();
                untrust(family, &there, &anchors, &bundle)
            }
        };
        let needs_root = access(&anchors, Access::WRITE_OK).is_err();
        Ok(Plan { store: family.name.to_owned(), steps, needs_root })
    }
}

/// A name of its own for each certificate: users of one machine have different ones.
fn anchor(anchors: &Path, authority: &Authority) -> PathBuf {
    let id = authority.fingerprint().to_ascii_lowercase();
    anchors.join(format!("halton-meter-{}.crt", id.get(..16).unwrap_or(&id)))
}

fn trust(
    family: &Family,
    authority: &Authority,
    anchors: &Path,
    bundle: &Path,
    is_trusted: bool,
) -> Vec<Step> {
    let to = anchor(anchors, authority);
    if is_trusted && to.exists() {
        return Vec::new();
    }
    vec![
        Step::Copy { from: authority.file.clone(), to },
        tool(family.tool, family.add),
        verify(bundle, authority, true),
    ]
}

fn untrust(family: &Family, there: &[Authority], anchors: &Path, bundle: &Path) -> Vec<Step> {
    if there.is_empty() {
        return Vec::new();
    }
    let removed = there.iter().map(|a| Step::Remove { path: anchor(anchors, a) });
    removed
        .chain([tool(family.tool, family.remove)])
        .chain(there.iter().map(|a| verify(bundle, a, false)))
        .collect()
}

fn tool(program: &str, args: &[&str]) -> Step {
    Step::Run(Call::new(program, args.iter().copied()))
}

fn verify(bundle: &Path, authority: &Authority, present: bool) -> Step {
    let certificate = authority.certificate.clone();
    Step::Check(Check::Certificate { bundle: bundle.to_path_buf(), certificate, present })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustls::pki_types::CertificateDer;

    use super::*;

    fn authority(n: u8) -> Authority {
        Authority { file: "/h/ca.pem".into(), certificate: CertificateDer::from(vec![n]) }
    }

    #[test]
    fn every_family_is_told_by_its_directory() {
        for family in &FAMILIES {
            let dir = tempfile::tempdir().unwrap();
            let store = Anchors::below(dir.path().to_path_buf());
            let nothing = store.plan(Change::Trust, &[authority(1)]);
            assert!(matches!(nothing, Err(TrustStoreError::Unknown(_))));
            fs::create_dir_all(store.at(family.anchors)).unwrap();
            let plan = store.plan(Change::Trust, &[authority(1), authority(2)]).unwrap();
            assert_eq!(plan.store, family.name);
            let [
                Step::Copy { to, .. },
                Step::Run(call),
                Step::Check(Check::Certificate { bundle, present: true, .. }),
            ] = &plan.steps[..]
            else {
                panic!("{plan:?}")
            };
            assert!(to.starts_with(store.at(family.anchors)) && to.extension().unwrap() == "crt");
            assert_eq!((call.program.as_str(), call.args.len()), (family.tool, family.add.len()));
            assert_eq!(bundle, &store.at(family.bundle));
            assert_eq!(store.plan(Change::Untrust, &[authority(1)]).unwrap().steps, []);
            // Both that are there, the current one and an earlier one, and nobody else's.
            fs::write(to, "").unwrap();
            fs::write(anchor(&store.at(family.anchors), &authority(2)), "").unwrap();
            let all = [authority(1), authority(2), authority(3)];
            let plan = store.plan(Change::Untrust, &all).unwrap();
            let removed = plan.steps.iter().filter(|s| matches!(s, Step::Remove { .. })).count();
            assert_eq!((removed, plan.steps.len()), (2, 5));
        }
    }
}
