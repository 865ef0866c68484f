use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;

use super::super::step::Answer;
use super::*;

const JOURNAL: &str = "/home/journal";

/// Files in memory, and one program: `switch on NAME`, `switch off NAME` (exit 3 when it is off).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Toy {
    files: BTreeMap<PathBuf, Blob>,
    dirs: BTreeSet<PathBuf>,
    on: BTreeSet<String>,
}

/// A toy that fails, or dies, at the n-th change.
#[derive(Debug, Default)]
struct Flaky {
    toy: Toy,
    count: usize,
    fail: Option<usize>,
    die: Option<usize>,
    asked: usize,
    paused: Duration,
}

impl Flaky {
    fn change<T>(&mut self, then: impl FnOnce(&mut Toy) -> T) -> io::Result<T> {
        self.count += 1;
        if self.die == Some(self.count) {
            panic!("killed");
        }
        if self.fail == Some(self.count) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let result = then(&mut self.toy);
        // Killed between the change and the next line of ours.
        self.count += 1;
        if self.die == Some(self.count) {
            panic!("killed");
        }
        Ok(result)
    }
}

impl Machine for Flaky {
    fn read(&self, path: &Path) -> io::Result<Option<Blob>> {
        Ok(self.toy.files.get(path).cloned())
    }
    fn write(&mut self, path: &Path, blob: &Blob) -> io::Result<()> {
        let dirs = self.missing_dirs(path);
        self.change(|toy| {
            toy.dirs.extend(dirs);
            toy.files.insert(path.to_path_buf(), blob.clone());
        })
    }
    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.change(|toy| drop(toy.files.remove(path)))
    }
    fn missing_dirs(&self, path: &Path) -> Vec<PathBuf> {
        let dirs = path.ancestors().skip(1).filter(|d| !self.toy.dirs.contains(*d));
        let mut dirs: Vec<_> = dirs.map(Path::to_path_buf).collect();
        dirs.reverse();
        dirs
    }
    fn remove_dir(&mut self, path: &Path) {
        let used = self.toy.files.keys().any(|f| f.starts_with(path))
            || self.toy.dirs.iter().any(|d| d != path && d.starts_with(path));
        if !used {
            self.toy.dirs.remove(path);
        }
    }
    fn append(&mut self, path: &Path, line: &[u8]) -> io::Result<()> {
        self.change(|toy| {
            let empty = Blob { content: Vec::new(), mode: 0o600 };
            toy.files.entry(path.to_path_buf()).or_insert(empty).content.extend(line);
        })
    }
    fn ask(&mut self, call: &Call) -> io::Result<Said> {
        self.asked += 1;
        let answer = |code| Said { code, ..Said::default() };
        let name = call.args.get(1).cloned().unwrap_or_default();
        match call.args.first().map(String::as_str) {
            Some("on") => self.change(|toy| toy.on.insert(name)).map(|_| answer(0)),
            Some("off") => self.change(|toy| answer(if toy.on.remove(&name) { 0 } else { 3 })),
            // It takes a while.
            Some("wait") => Ok(answer(if self.asked > 3 { 0 } else { 36 })),
            Some("list") => {
                let names: Vec<_> = self.toy.on.iter().map(String::as_str).collect();
                Ok(Said { out: format!("These are on:\n{}", names.join("\n")), ..answer(0) })
            }
            Some("lie") => Ok(Said { out: "** Error: it failed".to_owned(), ..answer(0) }),
            _ => Ok(Said { code: 5, err: "Input/output error".to_owned(), ..Said::default() }),
        }
    }
    fn holds(&mut self, _: &Check) -> bool {
        false
    }
    fn pause(&mut self, time: Duration) {
        self.paused += time;
    }
}

fn on(name: &str) -> Step {
    let off = Call::new("switch", ["off", name]).tolerate([Answer::Exit(3)]);
    Step::Run(Call::new("switch", ["on", name]).undo([off]))
}

fn run(machine: &mut Flaky, steps: &[Step]) -> Result<(), Failed> {
    execute(machine, Path::new(JOURNAL), steps)
}

fn step() -> impl Strategy<Value = Step> {
    let path = || prop::sample::select(vec!["/u/.rc", "/u/.profile", "/u/conf/a/x", "/u/conf/y"]);
    let text = || "[a-z]{0,6}";
    prop_oneof![
        (path(), text()).prop_map(|(p, t)| Step::write(p, t, 0o644)),
        path().prop_map(Step::remove),
        (path(), prop::option::of(text()))
            .prop_map(|(p, body)| Step::Section { path: p.into(), body }),
        "[a-c]".prop_map(|name| on(&name)),
    ]
}

/// Switches are off at the start: the toy's undo turns them off.
fn toy() -> impl Strategy<Value = Toy> {
    let file = ("/u/(\\.rc|\\.profile|conf/y)", "([a-z]{0,4}\n){0,2}[a-z]{0,3}");
    prop::collection::btree_map(file.0, file.1, 0..3).prop_map(|files| {
        let blob = |text: String| Blob { content: text.into_bytes(), mode: 0o600 };
        let files: BTreeMap<PathBuf, _> =
            files.into_iter().map(|(path, text)| (path.into(), blob(text))).collect();
        let mut dirs: BTreeSet<PathBuf> = ["/", "/u", "/home"].map(PathBuf::from).into();
        dirs.extend(files.keys().flat_map(|f| f.ancestors().skip(1).map(Path::to_path_buf)));
        Toy { files, dirs, on: BTreeSet::new() }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_failure_at_any_point_leaves_the_old_state(
        toy in toy(), steps in prop::collection::vec(step(), 1..7)
    ) {
        let mut whole = Flaky { toy: toy.clone(), ..Flaky::default() };
        run(&mut whole, &steps).unwrap();
        prop_assert!(!whole.toy.files.contains_key(Path::new(JOURNAL)));
        for fail in (1..=whole.count).step_by(2) {
            let mut machine =
                Flaky { toy: toy.clone(), fail: Some(fail), ..Flaky::default() };
            let failed = run(&mut machine, &steps).unwrap_err();
            prop_assert_eq!(&failed.left, &Vec::<String>::new());
            prop_assert_eq!(&machine.toy, &toy, "failed at {}", fail);
        }
    }

    #[test]
    fn a_kill_at_any_point_leaves_what_recovers_to_the_old_state_or_is_the_new_one(
        toy in toy(), steps in prop::collection::vec(step(), 1..7), again in 1usize..8,
    ) {
        let mut whole = Flaky { toy: toy.clone(), ..Flaky::default() };
        run(&mut whole, &steps).unwrap();
        for die in 1..=whole.count {
            let mut machine = Flaky { toy: toy.clone(), die: Some(die), ..Flaky::default() };
            let killed = catch_unwind(AssertUnwindSafe(|| run(&mut machine, &steps)));
            prop_assert!(killed.is_err());
            // Whoever takes it back may be killed as well.
            (machine.count, machine.die) = (0, Some(again));
            let _ = catch_unwind(AssertUnwindSafe(|| recover(&mut machine, Path::new(JOURNAL))));
            machine.die = None;
            let left = recover(&mut machine, Path::new(JOURNAL)).unwrap();
            prop_assert_eq!(left.unwrap_or_default(), Vec::<String>::new());
            prop_assert!(
                machine.toy == toy || (machine.toy == whole.toy && die == whole.count),
                "killed at {}: {:?}", die, machine.toy
            );
        }
    }
}

#[test]
fn what_the_user_wrote_since_the_kill_stays() {
    let rc = PathBuf::from("/u/.rc");
    let blob = |text: &str| Blob { content: text.as_bytes().to_vec(), mode: 0o644 };
    let mut machine = Flaky::default();
    machine.toy.files.insert(rc.clone(), blob("mine\n"));
    let steps = [Step::Section { path: rc.clone(), body: Some("ours".into()) }, on("a")];
    machine.die = Some(6);
    let killed = catch_unwind(AssertUnwindSafe(|| run(&mut machine, &steps)));
    assert!(killed.is_err());
    machine.die = None;
    machine.toy.files.get_mut(&rc).unwrap().content.extend(b"more of mine\n");
    assert_eq!(recover(&mut machine, Path::new(JOURNAL)).unwrap(), Some(vec![]));
    assert_eq!(machine.toy.files[&rc], blob("mine\nmore of mine\n"));
}

#[test]
fn a_start_file_needs_no_utf_8_and_one_that_is_no_text_is_left_as_it_is() {
    let rc = PathBuf::from("/u/.rc");
    let blob = |content: &[u8]| Blob { content: content.to_vec(), mode: 0o644 };
    let section =
        |body: Option<&str>| Step::Section { path: rc.clone(), body: body.map(Into::into) };
    let latin = blob(b"# M\xfcller\nalias x=y");
    let mut machine = Flaky::default();
    machine.toy.files.insert(rc.clone(), latin.clone());
    let failed = run(&mut machine, &[section(Some("a")), Step::Run(Call::default())]).unwrap_err();
    assert!(failed.left.is_empty(), "{:?}", failed.left);
    assert_eq!(machine.toy.files[&rc], latin);
    run(&mut machine, &[section(Some("a"))]).unwrap();
    assert_ne!(machine.toy.files[&rc], latin);
    run(&mut machine, &[section(None)]).unwrap();
    assert_eq!(machine.toy.files[&rc], latin);

    let wide = blob(b"a\0\n\0");
    machine.toy.files.insert(rc.clone(), wide.clone());
    let failed = run(&mut machine, &[section(Some("a"))]).unwrap_err();
    assert!(failed.left.is_empty(), "{:?}", failed.left);
    assert!(failed.to_string().contains("--no-shell-rc"), "{failed}");
    assert_eq!(machine.toy.files, BTreeMap::from([(rc.clone(), wide)]), "and no journal");
}

#[test]
fn what_can_not_be_taken_back_is_said_and_tried_again() {
    let mut machine = Flaky::default();
    let stuck = Call::new("switch", ["on", "a"]).undo([Call::new("switch", ["broken"])]);
    let steps = [Step::write("/u/x", "", 0o600), Step::Run(stuck), Step::Run(Call::default())];
    let failed = run(&mut machine, &steps).unwrap_err();
    assert!(failed.to_string().contains("Input/output error (exit 5)"), "{failed}");
    assert_eq!(failed.left.len(), 1);
    assert!(!machine.toy.files.contains_key(Path::new("/u/x")), "the others are taken back");
    let left = recover(&mut machine, Path::new(JOURNAL)).unwrap().unwrap();
    assert_eq!(left, failed.left);
}

#[test]
fn an_answer_that_passes_is_waited_for_and_no_longer_than_patience() {
    let mut machine = Flaky::default();
    let wait = Call::new("switch", ["wait"]);
    let busy = [Answer::Exit(36)];
    call(&mut machine, &wait.again(busy, Duration::from_secs(1))).unwrap();
    assert_eq!(machine.asked, 4);
    machine.paused = Duration::ZERO;
    let broken = Call::new("switch", ["broken"]);
    let broken = broken.again([Answer::Says("Input".into())], Duration::from_secs(1));
    call(&mut machine, &broken).unwrap_err();
    assert_eq!(machine.paused, Duration::from_secs(1));
    assert!(call(&mut machine, &broken.tolerate([Answer::Exit(5)])).is_err(), "waits first");
}

#[test]
fn what_is_listed_no_more_has_nothing_left_to_fail_at() {
    let mut machine = Flaky::default();
    let list = Call::new("switch", ["list"]);
    let about =
        |name: &str| Call::new("switch", ["break", name]).listed(list.clone(), [name.to_owned()]);
    call(&mut machine, &about("gone")).expect_err("an empty list tells nothing");
    machine.toy.on = ["here".to_owned()].into();
    let passes = [Answer::Says("Input".to_owned())];
    call(&mut machine, &about("gone").again(passes, Duration::from_secs(1))).unwrap();
    assert_eq!(machine.paused, Duration::from_secs(1), "not before its time");
    call(&mut machine, &about("here")).unwrap_err();
    let unlisted = about("gone").listed(Call::new("switch", ["break"]), ["gone".to_owned()]);
    call(&mut machine, &unlisted).expect_err("nobody knows");
}

#[test]
fn an_error_that_ends_with_0_is_one_where_that_is_known() {
    let mut machine = Flaky::default();
    let lie = Call::new("switch", ["lie"]);
    call(&mut machine, &lie).unwrap();
    let error = call(&mut machine, &lie.clone().fails_saying("** Error")).unwrap_err();
    assert!(error.to_string().contains("it failed"), "{error}");
    let passes = [Answer::Says("it failed".to_owned())];
    let waits = lie.fails_saying("** Error").again(passes, Duration::from_secs(1));
    call(&mut machine, &waits).unwrap_err();
    assert_eq!(machine.paused, Duration::from_secs(1));
}
