//! Whether a directory is somebody's work, or just where programs happen to be.

use std::path::{Component, Path, PathBuf};

use super::cleaned;

/// Top-level directories of the system and of what is thrown away.
const SYSTEM: [&str; 22] = [
    "Applications",
    "Library",
    "System",
    "bin",
    "boot",
    "cores",
    "dev",
    "etc",
    "lib",
    "lib32",
    "lib64",
    "nix",
    "opt",
    "private",
    "proc",
    "run",
    "sbin",
    "snap",
    "sys",
    "tmp",
    "usr",
    "var",
];
/// What has one directory for each user or disk.
const OF_MANY: [&str; 6] = ["Users", "Volumes", "export", "home", "media", "mnt"];
/// In a home: everybody has them.
const OF_ALL: [&str; 4] = ["Desktop", "Documents", "Downloads", "Library"];

/// The name of a project that lives in `dir`. `None`: nobody works there.
pub(super) fn name(dir: &Path, home: Option<&Path>) -> Option<String> {
    let own = home.filter(|home| home.components().count() > 1);
    let at_home = own.and_then(|home| dir.strip_prefix(home).ok());
    let parts: Vec<String> = at_home
        .unwrap_or(dir)
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            Component::Prefix(_) | Component::RootDir => None,
            Component::CurDir | Component::ParentDir => None,
        })
        .collect();
    let first = parts.first()?.as_str();
    let nobodys = if at_home.is_some() {
        first == "Library" || (parts.len() == 1 && OF_ALL.contains(&first))
    } else {
        SYSTEM.contains(&first) || first == "root" || (parts.len() <= 2 && OF_MANY.contains(&first))
    };
    // `~/.config/tool`, `~/.cache/…`: a program's own.
    if nobodys || parts.iter().any(|part| part.starts_with('.')) {
        return None;
    }
    parts.last().and_then(cleaned)
}

/// What does not answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Silent {
    pub place: PathBuf,
    /// Nor does what is below it.
    pub below: bool,
}

impl Silent {
    #[must_use]
    pub fn covers(&self, dir: &Path) -> bool {
        dir == self.place || (self.below && dir.starts_with(&self.place))
    }
}

/// What is silent as a whole when `dir` does not answer: what was mounted there, or what macOS asks its
/// user about. By its path alone, and by `mount`, where it is known.
pub(super) fn around(dir: &Path, home: Option<&Path>, mount: Option<PathBuf>) -> Silent {
    // What has home, or all, is not silent as a whole: then nothing would work.
    let is_apart = |place: &Path| {
        place.components().count() > 1 && !home.is_some_and(|home| home.starts_with(place))
    };
    if let Some(place) = mount.filter(|mount| dir.starts_with(mount) && is_apart(mount)) {
        return Silent { place, below: true };
    }
    let first = |base: &Path| Some(base.join(dir.strip_prefix(base).ok()?.components().next()?));
    let asked = |home: &Path| {
        let mut asked =
            ["Desktop", "Documents", "Downloads"].map(|name| home.join(name)).into_iter();
        let cloud = first(&home.join("Library/CloudStorage"));
        cloud.or_else(|| asked.find(|place| dir.starts_with(place)))
    };
    let apart = home.and_then(asked).or_else(|| first(Path::new("/Volumes")));
    let place = apart.unwrap_or_else(|| dir.to_path_buf());
    let below = is_apart(&place);
    Silent { place, below }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_silent_as_a_whole() {
        let home = Some(Path::new("/Users/me"));
        for (dir, mount, expected) in [
            ("/Users/me/src/shop", None, "/Users/me/src/shop"),
            ("/Users/me/Documents/shop/api", None, "/Users/me/Documents"),
            ("/Users/me/Desktop", None, "/Users/me/Desktop"),
            ("/Users/me/Library/CloudStorage/Box/a", None, "/Users/me/Library/CloudStorage/Box"),
            ("/Users/me/Library/Caches/a", None, "/Users/me/Library/Caches/a"),
            ("/Volumes/nas/a/b", None, "/Volumes/nas"),
            ("/Volumes", None, "/Volumes"),
            ("/srv/nas/a/b", Some("/srv/nas"), "/srv/nas"),
            ("/srv/a/b", Some("/"), "/srv/a/b"),
            ("/Users/me/a", Some("/Users"), "/Users/me/a"),
            ("/Users/me/nas/a", Some("/Users/me/nas"), "/Users/me/nas"),
            ("/Users/me", None, "/Users/me"),
            ("/", Some("/"), "/"),
        ] {
            let seen = around(Path::new(dir), home, mount.map(PathBuf::from));
            assert_eq!(seen.place, Path::new(expected), "{dir}");
            assert_eq!(seen.below, expected != "/Users/me" && expected != "/", "{dir}");
            assert!(seen.covers(Path::new(dir)) && !seen.covers(Path::new("/else")), "{dir}");
        }
    }

    #[test]
    fn a_directory_names_a_project_where_people_work() {
        let home = Some(Path::new("/home/me"));
        for (dir, expected) in [
            ("/home/me/notes", Some("notes")),
            ("/home/me/src/shop/api", Some("api")),
            ("/home/me/Desktop/job", Some("job")),
            ("/home/me/Desktop", None),
            ("/home/me", None),
            ("/home/me/.config/tool", None),
            ("/home/me/work/.cache/x", None),
            ("/home/me/Library/Caches/tool", None),
            ("/home/you", None),
            ("/home/you/job", Some("job")),
            ("/workspace", Some("workspace")),
            ("/srv/app", Some("app")),
            ("/mnt/disk", None),
            ("/Volumes/Disk/job", Some("job")),
            ("/", None),
            ("/tmp/x", None),
            ("/private/var/folders/x", None),
            ("/usr/lib/tool", None),
            ("/opt/tool", None),
            ("/root", None),
            ("", None),
        ] {
            assert_eq!(name(Path::new(dir), home).as_deref(), expected, "{dir}");
        }
        // In a container root's home may be anything, and may be all there is.
        let home = Path::new("/root");
        assert_eq!(name(&home.join("job"), Some(home)).as_deref(), Some("job"));
        assert_eq!(name(Path::new("/app"), Some(Path::new("/"))).as_deref(), Some("app"));
        assert_eq!(name(Path::new("/app"), None).as_deref(), Some("app"));
    }
}
