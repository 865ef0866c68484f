//! The exported bundle: the system's roots and ours in one file, for tools that take only one. And the
//! unions of ours and what a user had named already.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf, absolute};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;

use super::{Ca, CaError};
use crate::config::base64;
use crate::digest::sha256;
use crate::home::{Home, write_atomic};
use crate::meter::trust::{read_certificates, system_roots};

/// How names of unions begin.
const UNION: &str = "union";
/// How a union begins that can be made anew: behind it is the path of what it was made of.
const MADE_OF: &str = "# made of ";
/// A file may lie on a network that is gone, and a shell waits.
const NEAR: Duration = Duration::from_millis(200);

/// What is in the bundle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bundle {
    /// Roots besides ours.
    pub roots: usize,
    /// False: the file was already right.
    pub written: bool,
}

impl Ca {
    /// Writes the system's roots, `extra` and our certificates to [`Home::ca_bundle`], whole or not at
    /// all; unions that are there get ours too. What the user's own `SSL_CERT_FILE` names is in a union.
    ///
    /// # Errors
    /// [`CaError::NoRoots`] rather than a bundle with our CA alone: with that, a tool could reach
    /// no other host.
    pub fn write_bundle(
        &self,
        home: &Home,
        extra: &[CertificateDer<'static>],
    ) -> Result<Bundle, CaError> {
        let mut roots = system_roots(home);
        if roots.is_empty() {
            return Err(CaError::NoRoots);
        }
        roots.extend_from_slice(extra);
        let ours = known(home);
        roots.retain(|root| !ours.contains(root));
        roots.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
        roots.dedup();
        let mut text = String::from("# System roots and the CA of Halton Meter; made by it.\n");
        for der in roots.iter().chain(self.certificates()) {
            push_pem(&mut text, der);
        }
        let written = replace(&home.ca_bundle(), &text)?;
        for union in unions(home) {
            let theirs = fs::read(&union).map_err(CaError::io(&union))?;
            write_union(home, &theirs, &union)?;
        }
        Ok(Bundle { roots: roots.len(), written })
    }
}

/// `own` plus our CA in one file, named by the content's origin so that repeated calls agree. One that
/// was made so is that file itself. `None`: there is nothing to unite, no file that can be read, none of
/// the user's, or no CA yet.
///
/// # Errors
/// When it can't be written: whoever goes on with `own` does not trust our CA.
pub fn union_bundle(home: &Home, own: &Path) -> Result<Option<PathBuf>, CaError> {
    let Ok(own) = absolute(own) else { return Ok(None) };
    let Ok(theirs) = fs::read(&own) else { return Ok(None) };
    let (union, content) = if own.starts_with(home.ca_dir()) {
        if !is_union(home, &own) {
            return Ok(None);
        }
        (own, theirs)
    } else {
        let Some(name) = name_of_union(&own) else { return Ok(None) };
        (home.ca_dir().join(name), of_origin(&own, theirs))
    };
    Ok(write_union(home, &content, &union)?.then_some(union))
}

/// Makes unions anew of what they were made of, where that can be read by now: programs that have been
/// led to a union know nothing else, and roots are replaced. For a program of the user's: one in the
/// background would have macOS ask whether it may look into their folders.
pub fn renew_unions(home: &Home) {
    let (read, news) = mpsc::channel();
    for union in unions(home) {
        let Some(origin) = fs::read(&union).ok().as_deref().and_then(origin) else { continue };
        let read = read.clone();
        // It may never end. Without a thread the union stays as it is, as it does without an origin.
        let _ = thread::Builder::new().spawn(move || {
            if let Some(theirs) = fs::read(&origin).ok().filter(|theirs| is_whole(theirs)) {
                let _ = read.send((union, of_origin(&origin, theirs)));
            }
        });
    }
    drop(read);
    let end = Instant::now() + NEAR;
    while let Ok((union, theirs)) = news.recv_timeout(end.saturating_duration_since(Instant::now()))
    {
        let _ = write_union(home, &theirs, &union);
    }
}

/// Roots of `origin` with its name, if that is one to come back to: a text in one line, of a file that
/// every process sees under it.
fn of_origin(origin: &Path, theirs: Vec<u8>) -> Vec<u8> {
    let one_process = ["/dev", "/proc"].iter().any(|dir| origin.starts_with(dir));
    let name = origin.to_str().filter(|name| {
        // Readers of PEM look for dashes.
        !name.contains(char::is_control) && !name.contains("-----")
    });
    match name.filter(|_| !one_process && origin.is_file()) {
        Some(name) => [MADE_OF.as_bytes(), name.as_bytes(), b"\n", &theirs].concat(),
        None => theirs,
    }
}

/// What a union with this content was made of, if it says so.
fn origin(union: &[u8]) -> Option<PathBuf> {
    let line = union.split(|byte| *byte == b'\n').next()?;
    let path = PathBuf::from(std::str::from_utf8(line).ok()?.strip_prefix(MADE_OF)?);
    path.is_absolute().then_some(path)
}

/// Whoever replaces a file of roots may be just writing it.
fn is_whole(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    let begun = text.matches("-----BEGIN ").count();
    begun > 0 && begun == text.matches("-----END ").count()
}

/// Paths differ in what a name can't hold, so it is the hash that tells them apart.
fn name_of_union(own: &Path) -> Option<String> {
    let hash = sha256(own.as_os_str().as_bytes());
    let (short, _) = hash.split_first_chunk()?;
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let stem: String = own.file_stem()?.to_string_lossy().chars().take(64).map(plain).collect();
    Some(format!("{UNION}-{:016x}-{stem}.pem", u64::from_be_bytes(*short)))
}

/// Whether that is a file with a user's own roots and ours.
#[must_use]
pub fn is_union(home: &Home, path: &Path) -> bool {
    let named = path.file_name().and_then(|n| n.to_str()).is_some_and(is_name_of_union);
    named && path.parent().is_some_and(|dir| dir == home.ca_dir()) && path.is_file()
}

fn is_name_of_union(name: &str) -> bool {
    name.starts_with(UNION) && !name.ends_with(".tmp")
}

/// What is not ours stays to the letter. False: there is no CA yet.
fn write_union(home: &Home, theirs: &[u8], to: &Path) -> Result<bool, CaError> {
    let mut text = String::from_utf8_lossy(theirs).into_owned();
    let mut ours = Vec::new();
    for file in super::files(home) {
        // One that is retired by now has another name.
        let Ok(pem) = fs::read_to_string(&file) else { continue };
        text = text.replace(pem.trim(), "");
        if [home.ca_cert(), home.next_ca_cert()].contains(&file) {
            ours.push(pem);
        }
    }
    text.truncate(text.trim_end().len());
    for pem in &ours {
        text.push('\n');
        text.push_str(pem.trim());
    }
    text.push('\n');
    replace(to, &text)?;
    Ok(!ours.is_empty())
}

/// Every certificate that is or was ours.
fn known(home: &Home) -> Vec<CertificateDer<'static>> {
    super::files(home).iter().flat_map(|file| read_certificates(file)).collect()
}

fn unions(home: &Home) -> Vec<PathBuf> {
    let files = fs::read_dir(home.ca_dir()).into_iter().flatten().flatten().map(|e| e.path());
    files.filter(|path| is_union(home, path)).collect()
}

/// False: it was right already.
fn replace(path: &Path, text: &str) -> Result<bool, CaError> {
    let changed = super::read(path)?.is_none_or(|old| old != text.as_bytes());
    if changed {
        write_atomic(path, text.as_bytes()).map_err(CaError::io(path))?;
    }
    Ok(changed)
}

fn push_pem(text: &mut String, der: &CertificateDer<'_>) {
    let body = base64(der);
    text.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str("-----END CERTIFICATE-----\n");
}
