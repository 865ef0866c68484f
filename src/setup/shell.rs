//! Our section in the start files of shells: where it goes, and what it says. Pure.

use std::path::{Path, PathBuf};

use super::step::quoted;
use crate::home::HOME_VAR;
use crate::platform::Installation;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// What decides where the files are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Shells {
    /// `HOME`.
    pub home: PathBuf,
    /// `XDG_CONFIG_HOME`, else `~/.config`.
    pub config: PathBuf,
    /// `ZDOTDIR`, if set.
    pub zdotdir: Option<PathBuf>,
    /// `SHELL`.
    pub login: Option<PathBuf>,
    /// Terminals start login shells.
    pub macos: bool,
}

impl Shells {
    /// Every file that may hold our section.
    #[must_use]
    pub fn all(&self) -> Vec<(Shell, PathBuf)> {
        let mut all = vec![(Shell::Bash, self.home.join(".bashrc"))];
        all.extend(LOGIN.map(|name| (Shell::Bash, self.home.join(name))));
        all.push((Shell::Zsh, self.home.join(".zshrc")));
        if let Some(dir) = self.zdotdir.as_ref().filter(|dir| **dir != self.home) {
            all.push((Shell::Zsh, dir.join(".zshrc")));
        }
        all.push((Shell::Fish, self.config.join("fish/config.fish")));
        all
    }

    /// Those that are to hold it: of the login shell, and of each shell that the user has set up.
    #[must_use]
    pub fn wanted(&self, exists: &dyn Fn(&Path) -> bool) -> Vec<(Shell, PathBuf)> {
        let mut wanted = Vec::new();
        let login = self.login.as_deref().and_then(Path::file_name).and_then(|n| n.to_str());
        let bashrc = self.home.join(".bashrc");
        // Of its login files bash reads the first that is there.
        let profile = LOGIN.map(|name| self.home.join(name)).into_iter().find(|p| exists(p));
        let uses_bash = login == Some("bash");
        if exists(&bashrc) || (uses_bash && !self.macos) {
            wanted.push((Shell::Bash, bashrc));
        }
        if self.macos && (uses_bash || profile.is_some()) {
            let path = profile.unwrap_or_else(|| self.home.join(".bash_profile"));
            wanted.push((Shell::Bash, path));
        }
        let zshrc = self.zdotdir.as_ref().unwrap_or(&self.home).join(".zshrc");
        if exists(&zshrc) || login == Some("zsh") {
            wanted.push((Shell::Zsh, zshrc));
        }
        let fish = self.config.join("fish");
        if exists(&fish) || login == Some("fish") {
            wanted.push((Shell::Fish, fish.join("config.fish")));
        }
        wanted
    }
}

/// In the order in which bash looks for them.
const LOGIN: [&str; 3] = [".bash_profile", ".bash_login", ".profile"];

/// The lines of our section: the variables are set only while the edge answers, and a program that is
/// gone is no error.
#[must_use]
pub fn body(shell: Shell, installation: &Installation) -> String {
    let program = quoted(&installation.program);
    let home = installation.environment.get(HOME_VAR);
    let home = home.map(|h| format!("{HOME_VAR}={} ", quoted(Path::new(h)))).unwrap_or_default();
    let note = "# Put here by `halton-meter init`; `halton-meter uninstall` takes it out.";
    match shell {
        Shell::Bash | Shell::Zsh => format!(
            "{note}\nif [ -x {program} ]; then\n  \
             eval \"$({home}{program} env --if-up 2>/dev/null)\"\nfi"
        ),
        Shell::Fish => {
            let home = if home.is_empty() { home } else { format!("env {home}") };
            format!(
                "{note}\nif test -x {program}\n  \
                 {home}{program} env --if-up --shell fish 2>/dev/null | source\nend"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(shells: &Shells, there: &[&str]) -> Vec<String> {
        let exists = |path: &Path| there.iter().any(|t| path == Path::new(t));
        let wanted = shells.wanted(&exists).into_iter();
        wanted.map(|(_, path)| path.display().to_string()).collect()
    }

    fn shells(login: &str, macos: bool) -> Shells {
        Shells {
            home: "/u".into(),
            config: "/u/.config".into(),
            zdotdir: None,
            login: Some(login.into()),
            macos,
        }
    }

    #[test]
    fn each_shell_gets_the_file_that_it_reads() {
        let linux = shells("/bin/bash", false);
        assert_eq!(wanted(&linux, &[]), ["/u/.bashrc"]);
        assert_eq!(
            wanted(&linux, &["/u/.bashrc", "/u/.profile", "/u/.config/fish"]),
            ["/u/.bashrc", "/u/.config/fish/config.fish"]
        );
        let mac = shells("/bin/zsh", true);
        assert_eq!(wanted(&mac, &[]), ["/u/.zshrc"]);
        let bash = shells("/opt/homebrew/bin/bash", true);
        assert_eq!(wanted(&bash, &[]), ["/u/.bash_profile"]);
        // A .bash_profile of ours would keep bash from reading the one that is there.
        assert_eq!(wanted(&bash, &["/u/.profile"]), ["/u/.profile"]);
        let moved = Shells { zdotdir: Some("/u/zsh".into()), ..shells("/bin/zsh", false) };
        assert_eq!(wanted(&moved, &["/u/.zshrc"]), ["/u/zsh/.zshrc"]);
        assert_eq!(wanted(&shells("/bin/dash", false), &[]), Vec::<String>::new());
    }

    #[test]
    fn whatever_is_wanted_is_looked_for_when_it_is_taken_out() {
        for login in ["bash", "zsh", "fish"] {
            for macos in [false, true] {
                let shells = Shells { zdotdir: Some("/z".into()), ..shells(login, macos) };
                let all = shells.all();
                for file in shells.wanted(&|_| true) {
                    assert!(all.contains(&file), "{file:?}");
                }
            }
        }
    }
}
