//! podman hands the proxy variables of its caller on to containers and builds, where 127.0.0.1 is the
//! container itself: everything in there is refused. Its settings know a word for containers only.

use std::ffi::OsStr;
use std::path::PathBuf;

use rustix::fs::{Access, access};

use crate::platform::{self, User};

const PODMAN: &str = "podman";

/// What to do about it, where it is so. On a Mac podman's containers are in a machine of their own, which
/// does not see this session's variables.
pub fn advice(user: &User) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if platform::is_macos() || !is_on(&path) {
        return None;
    }
    let own = user.config.join("containers/containers.conf");
    let files = ["/usr/share/containers/containers.conf", "/etc/containers/containers.conf"];
    let files = files.into_iter().map(PathBuf::from).chain([own.clone()]);
    let texts: Vec<_> = files.filter_map(|file| std::fs::read_to_string(file).ok()).collect();
    hands_on(&texts).then(|| {
        format!(
            "podman hands the proxy variables on to containers, where our address is nobody's: \
             `http_proxy = false` under [containers] in {} ends that for `podman run`; `podman build` \
             needs `--http-proxy=false`",
            own.display()
        )
    })
}

fn is_on(path: &OsStr) -> bool {
    let runs = |dir: PathBuf| access(dir.join(PODMAN), Access::EXEC_OK).is_ok();
    std::env::split_paths(path).any(runs)
}

/// Later files win. It is on unless somebody has switched it off.
fn hands_on(texts: &[String]) -> bool {
    let said = |text: &String| {
        let table: toml::Table = text.parse().ok()?;
        table.get("containers")?.get("http_proxy")?.as_bool()
    };
    texts.iter().rev().find_map(said).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts() {
        let file = |value: &str| format!("[engine]\n[containers]\nhttp_proxy = {value}\n");
        let hands_on = |texts: &[&str]| {
            hands_on(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
        };
        let (on, off) = (&*file("true"), &*file("false"));
        assert!(hands_on(&[]) && hands_on(&["[containers]\n", "no [toml"]) && hands_on(&[off, on]));
        assert!(!hands_on(&[on, off]) && !hands_on(&[off, "[containers]\n"]));
        assert!(hands_on(&["[engine]\nhttp_proxy = false\n"]), "of something else");
    }
}
