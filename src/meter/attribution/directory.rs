//! Whether a directory is somebody's work, or just where programs happen to be.

use std::path::{Component, Path};

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

#[cfg(test)]
mod tests {
    use super::*;

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
