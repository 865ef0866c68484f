//! The user's trust settings by `security`. It asks the person in a dialog; an exit code of 0 is not
//! taken for trust, and a certificate that was imported but refused is taken out again.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::setup::{self, Answer, Call, Os, Said, Step, StepError};
use crate::trust_store::{Authority, Change, Plan, TrustStore, TrustStoreError};

pub const PROGRAM: &str = "security";
/// What `delete-certificate` says when there is nothing to delete.
const NOT_FOUND: &str = "Unable to delete certificate matching";

/// The login keychain.
#[derive(Clone, Debug)]
pub struct Keychain {
    file: PathBuf,
    /// Where `security` is looked for; `None`: by the search path.
    path: Option<OsString>,
}

impl Keychain {
    /// Of the user whose home this is.
    #[must_use]
    pub fn of(user_home: &std::path::Path) -> Self {
        Self { file: user_home.join("Library/Keychains/login.keychain-db"), path: None }
    }

    fn call(args: &[&str]) -> Call {
        Call::new(PROGRAM, args.iter().copied())
    }

    fn ask(&self, call: &Call) -> Result<Said, StepError> {
        setup::call(&mut Os { path: self.path.clone(), ..Os::default() }, call)
    }

    /// Fingerprints of the certificates in the keychain.
    fn held(&self) -> Result<Vec<String>, TrustStoreError> {
        let keychain = self.file.display().to_string();
        let listing = Self::call(&["find-certificate", "-a", "-Z", &keychain]);
        Ok(fingerprints(&self.ask(&listing)?.out))
    }

    fn is_trusted(&self, authority: &Authority) -> Result<bool, TrustStoreError> {
        match self.ask(&verify(authority)) {
            Ok(_) => Ok(true),
            Err(StepError::Refused { .. }) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn trust(&self, authority: &Authority) -> Vec<Step> {
        let (file, keychain) =
            (authority.file.display().to_string(), self.file.display().to_string());
        let add = Self::call(&["add-trusted-cert", "-r", "trustRoot", "-k", &keychain, &file]);
        // A refusal comes before the import, or after it.
        let back = self.delete(authority).tolerate([Answer::Says(NOT_FOUND.to_owned())]);
        let add = add.undo([back]);
        vec![Step::Run(add), Step::Run(verify(authority))]
    }

    /// `remove-trusted-cert` says 1 when there is nothing to remove, in the user's language, and when it
    /// was refused. One that is trusted has something to remove: then it is a refusal, and the certificate stays,
    /// as trust in one that is nowhere to be seen would be left.
    fn untrust(&self, authority: &Authority, held: bool, trusted: bool) -> Vec<Step> {
        let mut remove =
            Self::call(&["remove-trusted-cert", &authority.file.display().to_string()]);
        if !trusted {
            remove = remove.tolerate([Answer::Exit(1)]);
        }
        let delete = held.then(|| self.delete(authority));
        [remove].into_iter().chain(delete).map(Step::Run).collect()
    }

    /// By the fingerprint: a name would match others as well.
    fn delete(&self, authority: &Authority) -> Call {
        let keychain = self.file.display().to_string();
        Self::call(&["delete-certificate", "-Z", &authority.fingerprint(), &keychain])
    }
}

impl TrustStore for Keychain {
    fn plan(&self, change: Change, authorities: &[Authority]) -> Result<Plan, TrustStoreError> {
        let steps = match (change, authorities) {
            (Change::Trust, []) => Vec::new(),
            (Change::Trust, [current, ..]) if self.is_trusted(current)? => Vec::new(),
            (Change::Trust, [current, ..]) => self.trust(current),
            (Change::Untrust, all) => {
                let listed = self.held()?;
                let mut steps = Vec::new();
                for authority in all {
                    let held = listed.contains(&authority.fingerprint());
                    // Trust outlives the certificate's place in the keychain.
                    let trusted = self.is_trusted(authority)?;
                    if held || trusted {
                        steps.extend(self.untrust(authority, held, trusted));
                    }
                }
                steps
            }
        };
        Ok(Plan { store: "login keychain".to_owned(), steps, needs_root: false })
    }
}

/// As clients ask, without the network. What is asked about counts as a leaf, and by itself no CA may be one.
fn verify(authority: &Authority) -> Call {
    let file = authority.file.display().to_string();
    Keychain::call(&["verify-cert", "-l", "-L", "-p", "ssl", "-c", &file])
}

/// The `SHA-256 hash: HEX` lines of `find-certificate -Z`.
fn fingerprints(listing: &str) -> Vec<String> {
    let hashes = listing.lines().filter_map(|l| l.trim().strip_prefix("SHA-256 hash:"));
    hashes.map(|h| h.trim().to_ascii_uppercase()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustls::pki_types::CertificateDer;

    use super::super::standins::Standins;
    use super::*;

    struct Mac {
        tools: Standins,
        dir: tempfile::TempDir,
        store: Keychain,
        authority: Authority,
    }

    impl Mac {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let tools = Standins::below(dir.path());
            let file = dir.path().join("ca.pem");
            let pem = "-----BEGIN CERTIFICATE-----\nBw==\n-----END CERTIFICATE-----\n";
            fs::write(&file, pem).unwrap();
            let authority = Authority { file, certificate: CertificateDer::from(vec![7]) };
            let store = Keychain { path: Some(tools.path()), ..Keychain::of(dir.path()) };
            Self { tools, dir, store, authority }
        }

        fn plan(&self, change: Change) -> Plan {
            self.store.plan(change, std::slice::from_ref(&self.authority)).unwrap()
        }

        fn apply(&self, change: Change) -> Result<(), setup::Failed> {
            let mut os = Os { path: self.store.path.clone(), ..Os::default() };
            setup::execute(&mut os, &self.dir.path().join("journal"), &self.plan(change).steps)
        }

        /// `None`: it is not in the keychain.
        fn trusted(&self) -> Option<bool> {
            self.tools.state()["security"][self.authority.fingerprint()]["trusted"].as_bool()
        }
    }

    #[test]
    fn there_and_back() {
        let mac = Mac::new();
        assert_eq!(mac.plan(Change::Untrust).steps, []);
        mac.apply(Change::Trust).unwrap();
        assert_eq!(mac.trusted(), Some(true));
        assert_eq!(mac.plan(Change::Trust).steps, [], "nothing to do twice");
        mac.apply(Change::Untrust).unwrap();
        assert_eq!(mac.trusted(), None);
        let keychain = mac.dir.path().join("Library/Keychains/login.keychain-db");
        let add = format!("security add-trusted-cert -r trustRoot -k {} ", keychain.display());
        assert_eq!(mac.tools.calls().iter().filter(|c| c.starts_with(&add)).count(), 1);
    }

    #[test]
    fn a_refusal_leaves_nothing_behind_and_is_not_asked_again() {
        for gui in [true, false] {
            let mac = Mac::new();
            mac.tools.set("consent", "no");
            mac.tools.set("gui", gui);
            let error = mac.apply(Change::Trust).unwrap_err();
            let wanted = if gui { "canceled by the user" } else { "no user interaction" };
            assert!(error.to_string().contains(wanted), "{error}");
            assert_eq!((mac.trusted(), error.left), (None, Vec::new()));
            let asked = mac.tools.calls();
            assert_eq!(asked.iter().filter(|c| c.contains("add-trusted-cert")).count(), 1);
        }
    }

    #[test]
    fn success_that_is_none_is_noticed() {
        let mac = Mac::new();
        mac.tools.set("consent", "lie");
        mac.apply(Change::Trust).unwrap_err();
        assert_eq!(mac.trusted(), None);
    }

    #[test]
    fn one_that_was_imported_but_never_trusted_goes_too() {
        let mac = Mac::new();
        mac.tools.set("consent", "lie");
        let Step::Run(add) = &mac.plan(Change::Trust).steps[0] else { panic!("no call") };
        mac.store.ask(add).unwrap();
        assert_eq!(mac.trusted(), Some(false));
        mac.apply(Change::Untrust).unwrap();
        assert_eq!(mac.trusted(), None);
    }

    #[test]
    fn what_the_tool_says_in_any_language_is_no_obstacle() {
        let mac = Mac::new();
        let Step::Run(add) = &mac.plan(Change::Trust).steps[0] else { panic!("no call") };
        mac.tools.set("consent", "lie");
        mac.store.ask(add).unwrap();
        let said = "Das Objekt wurde nicht im Schl\u{fc}sselbund gefunden.";
        let fail = serde_json::json!([{ "args": "^remove-trusted-cert", "code": 1, "text": said }]);
        mac.tools.set("fail", fail);
        mac.apply(Change::Untrust).unwrap();
        assert_eq!((mac.trusted(), mac.plan(Change::Untrust).steps), (None, Vec::new()));
    }

    #[test]
    fn a_refusal_to_take_it_out_shows_afterwards() {
        let mac = Mac::new();
        mac.apply(Change::Trust).unwrap();
        mac.tools.set("gui", false);
        let refused = mac.apply(Change::Untrust).unwrap_err();
        assert!(refused.to_string().contains("no user interaction"), "{refused}");
        assert_eq!(mac.trusted(), Some(true), "there to be seen, as long as it is trusted");
        // As an earlier version left it: trusted, and in the keychain no more.
        mac.tools.change(|state| {
            let fingerprint = mac.authority.fingerprint();
            state["security"].as_object_mut().unwrap().remove(&fingerprint);
            state["trusted"] = serde_json::json!([fingerprint]);
        });
        let left = mac.plan(Change::Untrust).steps;
        assert_eq!(left.len(), 1, "{left:?}");
        mac.tools.set("gui", true);
        mac.apply(Change::Untrust).unwrap();
        assert_eq!(mac.plan(Change::Untrust).steps, []);
    }

    #[test]
    fn only_sha_256_lines_count() {
        let listing = "SHA-256 hash: ab12\nSHA-1 hash: FF\nkeychain: \"x\"\nSHA-256 hash: CD\n";
        assert_eq!(fingerprints(listing), ["AB12", "CD"]);
    }
}
