//! Whose request is it? From the client's socket to its process, program, project.
//!
//! Off the byte path, on a blocking thread, while the connection is open. First who it is, of which the
//! kernel tells ([`Attributor::identify`]); then what files in and above its directory say
//! ([`Attributor::locate`]), which may never come back: a server can be gone, and macOS asks its user.

mod directory;
mod editor;
pub(super) mod file;
mod git;
mod interpreter;
mod mark;
mod place;
mod program;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use slog::Logger;

pub use directory::Silent;
pub use mark::{NAME as FILE_NAME, Problem, name_in};
pub use place::{Method, Place, of_directory};

use super::row::Row;
use super::secrets;
use crate::platform::owner::{self, Sockets};
use crate::platform::{self, Holder};

/// Processes whose unchanging facts are remembered.
const REMEMBERED: usize = 512;
/// Processes that are asked first whether they own a new socket.
const RECENT: usize = 8;
/// How long what is in a process's directory, its branch too, is taken for what it was.
const FRESH: Duration = Duration::from_secs(1);
/// What a project name may be long.
pub const MAX_NAME: usize = 200;
/// How far up a directory's parents are looked at.
const MAX_DEPTH: usize = 64;
/// Problems that were told are not told again, as long as there are no more of them.
const MAX_TOLD: usize = 256;

/// What is known of the client.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Attribution {
    pub pid: Option<u32>,
    pub program: Option<String>,
    /// The program is only an interpreter; a hint from the request's own headers is better.
    pub interpreter: bool,
    pub cwd: Option<String>,
    pub project: Option<String>,
    pub project_source: Option<Method>,
    pub branch: Option<String>,
    pub run: Option<String>,
    pub session: Option<String>,
}

impl Attribution {
    /// Fills in what the row does not say itself.
    pub fn apply(&self, row: &mut Row) {
        if self.program.is_some() && !(self.interpreter && row.client.is_some()) {
            row.client.clone_from(&self.program);
        }
        row.client_pid = row.client_pid.or(self.pid);
        fill(&mut row.run, self.run.as_ref());
        fill(&mut row.session, self.session.as_ref());
        fill(&mut row.cwd, self.cwd.as_ref());
        fill(&mut row.branch, self.branch.as_ref());
        if row.project.is_none() {
            let source = |method: Method| method.as_str().to_owned();
            (row.project, row.project_source) = match &self.project {
                Some(project) => (Some(project.clone()), self.project_source.map(source)),
                None => (row.client.clone(), row.client.as_ref().map(|_| source(Method::Program))),
            };
        }
        secrets::strip_owner(row);
    }
}

fn fill(field: &mut Option<String>, value: Option<&String>) {
    if field.is_none() {
        *field = value.cloned();
    }
}

/// Finds owners of sockets and remembers processes.
#[derive(Debug)]
pub struct Attributor {
    memory: Mutex<Memory>,
    sockets: Sockets,
    look: Look,
    log: Logger,
}

/// How a directory is looked into.
struct Look(Box<dyn Fn(&Unplaced) -> Place + Send + Sync>);

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Look")
    }
}

/// What could be told of a client without opening a file of its own.
#[derive(Debug)]
pub enum Found {
    /// All there is: nobody was found, or all is known from a moment ago.
    Whole(Attribution),
    Unplaced(Box<Unplaced>),
}

/// A client whose directory nobody has looked into.
#[derive(Debug)]
pub struct Unplaced {
    identity: Identity,
    facts: Facts,
    dir: PathBuf,
    who: Arc<Attribution>,
}

impl Unplaced {
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What holds if its directory says nothing: the project has the directory's own name.
    #[must_use]
    pub fn who(&self) -> &Arc<Attribution> {
        &self.who
    }

    /// Blocking, maybe for ever.
    #[must_use]
    pub fn look(&self) -> Place {
        place::of(&self.dir, self.facts.hints.folder().as_ref(), home().as_deref())
    }
}

/// What does not answer when this directory does not.
#[must_use]
pub fn silent_with(dir: &Path) -> Silent {
    directory::around(dir, home().as_deref(), platform::mounted_on(dir))
}

#[derive(Debug, Default)]
struct Memory {
    /// Most recent first.
    recent: VecDeque<Holder>,
    facts: HashMap<Identity, Facts>,
    /// What its directory said last to each of these, while it was there.
    places: HashMap<Identity, (PathBuf, Place)>,
    /// What was last found out, of connections that come together.
    latest: HashMap<Identity, Latest>,
    told: HashSet<Problem>,
}

#[derive(Debug)]
struct Latest {
    at: Instant,
    dir: Option<PathBuf>,
    found: Attribution,
}

/// A process as such: pids come back, and `exec` makes another program of it, or the same one anew.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Identity {
    pid: u32,
    instance: owner::Instance,
    exe: Option<PathBuf>,
}

/// What does not change while a program runs.
#[derive(Clone, Debug)]
struct Facts {
    program: Option<program::Program>,
    project: Option<String>,
    run: Option<String>,
    hints: editor::Hints,
}

impl Facts {
    /// The project, and how it was found, when its directory says this.
    fn project(&self, place: Option<(String, Method)>) -> (Option<String>, Option<Method>) {
        // A bare interpreter says nothing; the row may know better.
        let program = self.program.as_ref().filter(|program| !program.interpreter);
        let explicit = self.project.clone().map(|name| (name, Method::Explicit));
        let program = || program.map(|program| (program.name.clone(), Method::Program));
        explicit.or(place).or_else(program).unzip()
    }
}

impl Attributor {
    #[must_use]
    pub fn new(log: Logger) -> Self {
        Self::looking_with(log, Unplaced::look)
    }

    /// Looks into directories in another way.
    #[must_use]
    pub fn looking_with(
        log: Logger,
        look: impl Fn(&Unplaced) -> Place + Send + Sync + 'static,
    ) -> Self {
        let look = Look(Box::new(look));
        Self { memory: Mutex::default(), sockets: Sockets::default(), look, log }
    }

    /// All of it, for who may wait.
    #[must_use]
    pub fn attribute(&self, client: SocketAddr, local: SocketAddr) -> Attribution {
        match self.identify(client, local) {
            Found::Whole(whole) => whole,
            Found::Unplaced(unplaced) => self.locate(*unplaced),
        }
    }

    /// `client`: the client's end of the connection, `local`: the end that it connected to. What
    /// can't be found out stays empty.
    #[must_use]
    pub fn identify(&self, client: SocketAddr, local: SocketAddr) -> Found {
        let recent: Vec<Holder> = self.memory().recent.iter().copied().collect();
        let Some(holder) = self.sockets.holder(client, local, &recent) else {
            return Found::Whole(Attribution::default());
        };
        self.remember(holder);
        let (pid, _) = holder;
        let Some(instance) = owner::instance(pid) else {
            return Found::Whole(Attribution::default());
        };
        let identity = Identity { pid, instance, exe: owner::executable(pid) };
        // Before its environment: that may be long, and the program gone when it was read.
        let dir = owner::working_directory(pid);
        if let Some(latest) = self.memory().latest.get(&identity)
            && latest.at.elapsed() < FRESH
            && latest.dir == dir
        {
            return Found::Whole(latest.found.clone());
        }
        self.describe(identity, dir)
    }

    fn settle(&self, identity: Identity, dir: Option<PathBuf>, found: &Attribution) {
        let mut memory = self.memory();
        memory.latest.retain(|_, latest| latest.at.elapsed() < FRESH);
        // Not in the middle of an `exec`, when nothing can be told yet.
        if memory.facts.contains_key(&identity) {
            let latest = Latest { at: Instant::now(), dir, found: found.clone() };
            memory.latest.insert(identity, latest);
        }
    }

    fn describe(&self, identity: Identity, dir: Option<PathBuf>) -> Found {
        let pid = identity.pid;
        let known = self.memory().facts.get(&identity).cloned();
        let facts = known.unwrap_or_else(|| self.learn(identity.clone()));
        let own = dir.as_deref().and_then(|dir| directory::name(dir, home().as_deref()));
        let (project, project_source) = facts.project(own.map(|name| (name, Method::Cwd)));
        let who = Attribution {
            pid: Some(pid),
            program: facts.program.as_ref().map(|p| p.name.clone()),
            interpreter: facts.program.as_ref().is_some_and(|p| p.interpreter),
            cwd: dir.as_deref().map(|dir| dir.to_string_lossy().into_owned()),
            project,
            project_source,
            branch: None,
            run: facts.run.clone(),
            session: None,
        };
        match dir {
            Some(dir) => {
                Found::Unplaced(Box::new(Unplaced { identity, facts, dir, who: Arc::new(who) }))
            }
            None => {
                self.settle(identity, None, &who);
                Found::Whole(who)
            }
        }
    }

    /// With what its directory says. Blocking, maybe for ever.
    #[must_use]
    pub fn locate(&self, unplaced: Unplaced) -> Attribution {
        let place = (self.look.0)(&unplaced);
        if let Some(problem) = &place.problem {
            self.tell(problem);
        }
        let Unplaced { identity, facts, dir, who } = unplaced;
        let place = self.lasting(&identity, &dir, place);
        let (project, project_source) = facts.project(place.project);
        let whole = Attribution {
            project,
            project_source,
            branch: place.branch,
            ..Arc::unwrap_or_clone(who)
        };
        self.settle(identity, Some(dir), &whole);
        whole
    }

    /// A directory that was removed says nothing any more: what it said last to this process holds.
    fn lasting(&self, identity: &Identity, dir: &Path, place: Place) -> Place {
        let mut memory = self.memory();
        if place.gone {
            let before = memory.places.get(identity).filter(|(there, _)| there == dir);
            return before.map_or(place, |(_, before)| before.clone());
        }
        if memory.facts.contains_key(identity) {
            memory.places.insert(identity.clone(), (dir.to_path_buf(), place.clone()));
        }
        place
    }

    fn learn(&self, identity: Identity) -> Facts {
        let pid = identity.pid;
        let arguments = owner::arguments(pid);
        let line = (identity.exe.clone(), arguments);
        let ancestors = std::iter::successors(owner::parent(pid), |pid| owner::parent(*pid));
        let ancestors = ancestors.take_while(|pid| *pid > 1);
        let program = program::name_among(
            &line,
            ancestors.map(|pid| (owner::executable(pid), owner::arguments(pid))),
        );
        let names =
            [["HALTON_PROJECT", "HALTON_RUN"], editor::OF_THE_FOLDER, editor::OF_THE_EDITOR];
        let variables = owner::variables(pid, names.as_flattened());
        let (own, editors) = variables.split_at(2);
        let (of_the_folder, of_the_editor) = editors.split_at(editor::OF_THE_FOLDER.len());
        let own = |at: usize| own.get(at).cloned().flatten().and_then(cleaned);
        let facts = Facts {
            program,
            project: own(0),
            run: own(1),
            hints: editor::hints(pid, of_the_folder, of_the_editor),
        };
        if line.1.is_empty() {
            // In the middle of an `exec`: nothing of this is to be remembered.
            return facts;
        }
        let mut memory = self.memory();
        if memory.facts.len() >= REMEMBERED {
            memory.facts.clear();
            memory.places.clear();
        }
        memory.facts.insert(identity, facts.clone());
        facts
    }

    /// Each problem once.
    fn tell(&self, problem: &Problem) {
        let mut memory = self.memory();
        if memory.told.len() >= MAX_TOLD {
            memory.told.clear();
        }
        if memory.told.insert(problem.clone()) {
            drop(memory);
            slog::warn!(self.log, "passed over a project's file";
                "file" => problem.file.display().to_string(), "why" => &problem.why);
        }
    }

    fn remember(&self, holder: Holder) {
        let mut memory = self.memory();
        memory.recent.retain(|(pid, _)| *pid != holder.0);
        memory.recent.push_front(holder);
        memory.recent.truncate(RECENT);
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Readers of what others wrote, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) mod foreign {
    use super::{Path, PathBuf, cleaned, editor, git, mark, program};

    pub(crate) fn marked(text: &str) -> Result<Option<String>, String> {
        mark::name_of(text)
    }

    /// Where a `.git` file of this text leads, the branch of a `HEAD` and the name of a `commondir`.
    pub(crate) fn git(root: &Path, text: &str) -> (PathBuf, Option<String>, Option<String>) {
        let line = git::line_of(text).unwrap_or_default();
        let git_dir = git::linked_to(root, &line).unwrap_or_default();
        (git_dir, git::branch_of(&line), git::main_of_common(root, &line))
    }

    pub(crate) fn folder(arguments: &[String]) -> Option<PathBuf> {
        editor::folder_in(arguments, |path| path.extension().is_none())
    }

    pub(crate) fn program(exe: &Path, arguments: &[String]) -> Option<String> {
        let _ = editor::is_editor(exe);
        program::name(Some(exe), arguments).map(|program| program.name).and_then(cleaned)
    }
}

/// As the kernel names it: so are the directories that it is held against.
fn home() -> Option<PathBuf> {
    static REAL: OnceLock<PathBuf> = OnceLock::new();
    if let Some(home) = REAL.get() {
        return Some(home.clone());
    }
    let named = PathBuf::from(std::env::var_os("HOME").filter(|home| !home.is_empty())?);
    match named.canonicalize() {
        Ok(home) => Some(REAL.get_or_init(|| home).clone()),
        // It is asked again: it may be there later.
        Err(_) => Some(named),
    }
}

/// Blocking. What is not there stays as it is.
fn without_links(path: PathBuf) -> PathBuf {
    path.canonicalize().unwrap_or(path)
}

/// A name out of someone's environment, fit for a table.
pub(crate) fn cleaned(name: impl AsRef<str>) -> Option<String> {
    let name: String =
        name.as_ref().trim().chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    (!name.is_empty()).then_some(name)
}

fn file_name(path: &Path) -> Option<String> {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).and_then(cleaned)
}

#[cfg(test)]
mod tests;
