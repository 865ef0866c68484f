//! Scripts without `#!`: the kernel does not run them; shells, `env` and `nohup` have `sh` do it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Access, access};

/// What of a file tells text from another machine's program.
const LOOK: u64 = 128;

/// The same command by the shell; `None`: it is no script.
pub fn by_shell(command: &Command) -> Option<Command> {
    let file = found(command.get_program(), std::env::var_os("PATH").as_deref())?;
    if !is_text(&file).unwrap_or(false) {
        return None;
    }
    let mut shell = Command::new("/bin/sh");
    shell.arg(file).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    Some(shell)
}

fn found(program: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    if program.as_encoded_bytes().contains(&b'/') {
        return Some(program.into());
    }
    let runs = |file: &PathBuf| file.is_file() && access(file, Access::EXEC_OK).is_ok();
    std::env::split_paths(path?).map(|dir| dir.join(program)).find(runs)
}

fn is_text(file: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    File::open(file)?.take(LOOK).read_to_end(&mut start)?;
    Ok(!start.contains(&0))
}
