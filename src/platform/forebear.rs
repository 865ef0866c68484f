//! In which process the program of a process began: a worker that was forked from a server and did not start
//! a program of its own has what that one had read, its roots of trust among it.

use std::time::Duration;

use super::{age, owner};

/// Where a process has its program from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// It has started it itself.
    Own,
    /// From this one, which is there still.
    Of(u32),
}

/// Forks of forks that are followed.
const MAX_FORKS: usize = 64;

/// For how long the program of a process has been running, also in those that it was forked from. `None`: it
/// can't be told, as where one of those has ended.
#[must_use]
pub fn program_age(pid: u32) -> Option<Duration> {
    age(forebear(pid, owner::origin)?)
}

fn forebear(mut pid: u32, origin: impl Fn(u32) -> Option<Origin>) -> Option<u32> {
    for _ in 0..MAX_FORKS {
        match origin(pid)? {
            Origin::Own => return Some(pid),
            Origin::Of(parent) => pid = parent,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_is_as_old_as_what_it_was_forked_from() {
        let origin = |pid| match pid {
            1 | 7 => Some(Origin::Own),
            8 => Some(Origin::Of(7)),
            9 => Some(Origin::Of(8)),
            // Its parent has ended.
            20 => None,
            21 => Some(Origin::Of(20)),
            30 => Some(Origin::Of(31)),
            31 => Some(Origin::Of(30)),
            _ => panic!("not asked about"),
        };
        let pids = [1, 7, 8, 9, 20, 21, 30];
        let found = pids.map(|pid| forebear(pid, origin));
        assert_eq!(found, [Some(1), Some(7), Some(7), Some(7), None, None, None]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_subshell_is_a_fork_and_a_program_is_none() {
        use std::io::{BufRead, BufReader};
        use std::process::{Command, Stdio};

        // A subshell, a program, and a subshell of a shell that ends.
        let script = "exec 3<&0; (read x <&3) & echo $!; sh -c 'echo $$; read x <&3' & \
            sh -c '(read x <&3) & echo $!'; wait";
        let mut shell = Command::new("sh");
        let shell = shell.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        let lines = BufReader::new(shell.stdout.take().unwrap()).lines().take(3);
        let said: Vec<u32> = lines.map(|line| line.unwrap().parse().unwrap()).collect();
        let of = |pid| forebear(pid, owner::origin);
        let found = said.iter().filter(|pid| of(**pid) == Some(shell.id())).count();
        let own = said.iter().filter(|pid| of(**pid) == Some(**pid)).count();
        // Until its parent has ended the third one has it.
        while said.iter().all(|pid| of(*pid).is_some()) {
            std::thread::yield_now();
        }
        let age = program_age(said[0]);
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert_eq!((found, own), (1, 1), "{said:?}");
        assert!(age.is_some());
    }
}
