//! Editors: what they leave in a folder that they work on, and which folder a process of theirs was
//! started for.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::file::{self, Links};
use super::{MAX_DEPTH, cleaned, file_name, without_links};
use crate::platform::owner;

/// Directories that an editor makes in the root of what it opens.
const FOLDERS: [&str; 3] = [".idea", ".vscode", ".zed"];
const WORKSPACE: &str = "code-workspace";
/// Entries of a directory that are looked at for a workspace file.
const MOST: usize = 512;
/// How far up a process's editor is looked for.
const MAX_ANCESTORS: usize = 16;

/// Variables that name the folder that the process works on.
pub(super) const OF_THE_FOLDER: [&str; 2] = ["ZED_WORKTREE_ROOT", "CLAUDE_PROJECT_DIR"];
/// Variables that name the folder that the editor was started in.
pub(super) const OF_THE_EDITOR: [&str; 2] = ["VSCODE_CWD", "IDEA_INITIAL_DIRECTORY"];

/// Programs, and macOS's application bundles, as their names begin.
const EDITORS: [&str; 22] = [
    "android studio",
    "clion",
    "code",
    "codium",
    "cursor",
    "datagrip",
    "goland",
    "idea",
    "intellij idea",
    "phpstorm",
    "positron",
    "pycharm",
    "rider",
    "rubymine",
    "rustrover",
    "studio",
    "trae",
    "visual studio code",
    "vscodium",
    "webstorm",
    "windsurf",
    "zed",
];

/// The folder that an editor's process was started for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Folder {
    pub path: PathBuf,
    /// It was named as such. Otherwise it is only where the editor was started: it counts if there
    /// is a project.
    pub named: bool,
}

/// The nearest folder above `dir`, and below `home`, that an editor was opened on. Home itself has
/// such directories too, for other reasons.
pub(super) fn workspace(dir: &Path, home: Option<&Path>) -> Option<String> {
    dir.ancestors()
        .take(MAX_DEPTH)
        .take_while(|dir| Some(*dir) != home)
        .find_map(|dir| workspace_file(dir).or_else(|| marked(dir)))
}

/// What the process's variables and its ancestors' command lines tell. No file is looked at for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Hints {
    named: Option<PathBuf>,
    /// Command lines of the editors among its ancestors, the nearest first.
    editors: Vec<Vec<String>>,
    started: Option<PathBuf>,
}

pub(super) fn hints(
    pid: u32,
    of_the_folder: &[Option<String>],
    of_the_editor: &[Option<String>],
) -> Hints {
    let absolute = |text: &String| Some(PathBuf::from(text)).filter(|path| path.is_absolute());
    let first = |texts: &[Option<String>]| texts.iter().flatten().find_map(absolute);
    let named = first(of_the_folder);
    let editors = if named.is_some() { Vec::new() } else { editors(pid) };
    Hints { named, editors, started: first(of_the_editor) }
}

impl Hints {
    /// The folder that they lead to, as the kernel names it, whatever link they name; looks at what is
    /// there.
    pub(super) fn folder(&self) -> Option<Folder> {
        let folder = |path, named| Folder { path: without_links(path), named };
        let argument = || self.editors.iter().find_map(|line| folder_in(line, Path::is_dir));
        let named = self.named.clone().or_else(argument).map(|path| folder(path, true));
        named.or_else(|| Some(folder(self.started.clone()?, false)))
    }
}

fn workspace_file(dir: &Path) -> Option<String> {
    let entries = std::fs::read_dir(dir).ok()?.take(MOST).flatten();
    let mut files =
        entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == WORKSPACE));
    match (files.next(), files.next()) {
        (Some(file), None) => stem(&file),
        // Of several, none is meant more than the others.
        (None | Some(_), _) => None,
    }
}

fn marked(dir: &Path) -> Option<String> {
    FOLDERS.iter().find(|name| dir.join(name).is_dir())?;
    renamed(&dir.join(".idea")).or_else(|| file_name(dir))
}

/// JetBrains' own name for it, where it is another than the folder's.
fn renamed(idea: &Path) -> Option<String> {
    if !idea.symlink_metadata().is_ok_and(|it| it.is_dir()) {
        return None;
    }
    let (text, _) = file::read(&idea.join(".name"), 1024, Links::Refused).ok()?;
    cleaned(text.lines().next()?)
}

fn editors(pid: u32) -> Vec<Vec<String>> {
    std::iter::successors(Some(pid), |pid| owner::parent(*pid).filter(|parent| *parent > 1))
        .take(MAX_ANCESTORS)
        .filter(|pid| owner::executable(*pid).is_some_and(|exe| is_editor(&exe)))
        .map(owner::arguments)
        .collect()
}

pub(super) fn is_editor(exe: &Path) -> bool {
    let bundle = exe.iter().find_map(|part| part.to_str()?.strip_suffix(".app"));
    let name = bundle.map(str::to_owned).or_else(|| file_name(exe)).unwrap_or_default();
    let name = name.to_lowercase();
    EDITORS.iter().any(|editor| {
        name.strip_prefix(editor).is_some_and(|rest| !rest.starts_with(char::is_alphabetic))
    })
}

/// `--folder-uri URI`, `--file-uri URI`, or an absolute path that is no option's value.
pub(super) fn folder_in(arguments: &[String], is_dir: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let mut before = "";
    for argument in arguments.iter().skip(1) {
        let uri = match argument.split_once('=') {
            Some(("--folder-uri" | "--file-uri", uri)) => Some(uri),
            Some(_) | None => {
                ["--folder-uri", "--file-uri"].contains(&before).then_some(argument.as_str())
            }
        };
        let value_of_option = before.starts_with('-') && !before.contains('=');
        let path = match uri {
            Some(uri) => of_uri(uri),
            None => Some(PathBuf::from(argument)).filter(|p| p.is_absolute() && !value_of_option),
        };
        before = argument;
        let Some(path) = path else { continue };
        if path.extension().is_some_and(|e| e == WORKSPACE) {
            return path.parent().map(Path::to_path_buf);
        }
        if is_dir(&path) {
            return Some(path);
        }
    }
    None
}

/// `file:///home/me/a%20b`; other schemes are other machines.
fn of_uri(uri: &str) -> Option<PathBuf> {
    let mut rest = uri.strip_prefix("file://").filter(|path| path.starts_with('/'))?.bytes();
    let mut path = Vec::with_capacity(uri.len());
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        path.push(match byte {
            b'%' => u8::try_from(digit(rest.next())? * 16 + digit(rest.next())?).ok()?,
            plain => plain,
        });
    }
    Some(PathBuf::from(OsString::from_vec(path)))
}

fn stem(path: &Path) -> Option<String> {
    path.file_stem().map(|stem| stem.to_string_lossy()).and_then(cleaned)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn editors_mark_their_folders() {
        let dir = tempfile::tempdir().unwrap();
        let (home, root) = (dir.path(), dir.path().join("job"));
        let deep = root.join("a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir(home.join(".vscode")).unwrap();
        let found = || workspace(&deep, Some(home));
        assert_eq!(found(), None, "home has such directories for other reasons");
        fs::create_dir(root.join(".idea")).unwrap();
        assert_eq!(found().as_deref(), Some("job"));
        fs::write(root.join(".idea/.name"), "The Job\n").unwrap();
        assert_eq!(found().as_deref(), Some("The Job"));
        fs::write(root.join("all.code-workspace"), "{}").unwrap();
        assert_eq!(found().as_deref(), Some("all"));
        fs::write(root.join("some.code-workspace"), "{}").unwrap();
        assert_eq!(found().as_deref(), Some("The Job"), "which of the two?");
        fs::create_dir(deep.join(".zed")).unwrap();
        assert_eq!(found().as_deref(), Some("b"), "the nearest");
    }

    #[test]
    fn a_link_to_a_secret_is_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("job");
        fs::create_dir_all(root.join(".idea")).unwrap();
        fs::write(dir.path().join(".awscreds"), "id = AKIA1\nsecret = 2\n").unwrap();
        symlink("../../.awscreds", root.join(".idea/.name")).unwrap();
        let found = || workspace(&root, None);
        assert_eq!(found().as_deref(), Some("job"));
        // A directory of the user's, in its place.
        let other = dir.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join(".name"), "secret\n").unwrap();
        fs::remove_dir_all(root.join(".idea")).unwrap();
        symlink("../other", root.join(".idea")).unwrap();
        assert_eq!(found().as_deref(), Some("job"));
        fs::remove_file(root.join(".idea")).unwrap();
        fs::create_dir(root.join(".idea")).unwrap();
        fs::write(root.join(".idea/.name"), "The Job\nand more\n").unwrap();
        assert_eq!(found().as_deref(), Some("The Job"));
    }

    #[test]
    fn folders_on_command_lines() {
        let is_dir = |path: &Path| path.starts_with("/w") && path.extension().is_none();
        for (line, expected) in [
            ("code /w/shop", Some("/w/shop")),
            ("code --folder-uri file:///w/a%20b", Some("/w/a b")),
            ("code --folder-uri=file:///w/a", Some("/w/a")),
            ("code --file-uri file:///w/x/all.code-workspace", Some("/w/x")),
            ("code /w/x/all.code-workspace", Some("/w/x")),
            ("code --user-data-dir /w/data", None),
            ("code --user-data-dir /w/data /w/shop", Some("/w/shop")),
            ("code --folder-uri vscode-remote://ssh/w/a", None),
            ("code --folder-uri file:///w/%zz", None),
            ("code w/shop /w/file.rs", None),
            ("code", None),
        ] {
            let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(folder_in(&arguments, is_dir).as_deref(), expected.map(Path::new), "{line}");
        }
    }

    #[test]
    fn a_folder_that_is_named_through_a_link_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let shop = dir.path().canonicalize().unwrap().join("shop");
        fs::create_dir(&shop).unwrap();
        let link = dir.path().join("shoplink");
        symlink(&shop, &link).unwrap();
        let line = ["code".to_owned(), link.to_string_lossy().into_owned()];
        for hints in [
            Hints { named: Some(link.clone()), ..Hints::default() },
            Hints { editors: vec![line.to_vec()], ..Hints::default() },
            Hints { started: Some(link), ..Hints::default() },
        ] {
            assert_eq!(hints.folder().unwrap().path, shop, "{hints:?}");
        }
        let gone = dir.path().join("gone");
        let hints = Hints { named: Some(gone.clone()), ..Hints::default() };
        assert_eq!(hints.folder(), Some(Folder { path: gone, named: true }));
    }

    #[test]
    fn editors_by_program_and_by_bundle() {
        for (exe, expected) in [
            ("/usr/share/code/code", true),
            ("/usr/share/code-insiders/code-insiders", true),
            ("/opt/idea/bin/idea", true),
            ("/opt/pycharm/bin/pycharm64", true),
            (
                "/Applications/Visual Studio Code.app/Contents/Frameworks/Code Helper (Plugin).app/x",
                true,
            ),
            ("/Applications/Cursor.app/Contents/MacOS/Cursor", true),
            ("/home/me/.local/zed.app/libexec/zed-editor", true),
            ("/usr/bin/codex", false),
            ("/usr/bin/node", false),
            ("/Applications/Coder Desktop.app/Contents/MacOS/Coder", false),
        ] {
            assert_eq!(is_editor(Path::new(exe)), expected, "{exe}");
        }
    }
}
