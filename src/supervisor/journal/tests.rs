use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use super::*;

const LONG: Duration = Duration::from_secs(30);

#[test]
fn lines_of_several_processes_are_read_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let (a, b) = (Journal::open(&path, "edge"), Journal::open(&path, "daemon"));
    for i in 0..50 {
        a.append(Note::new("one").cause(i));
        b.append(Note::new("two").cause(i));
    }
    a.flush(LONG);
    b.flush(LONG);
    let entries = read_all(&path).unwrap();
    assert_eq!(entries.len(), 100);
    for process in ["edge", "daemon"] {
        let seqs: Vec<_> = entries.iter().filter(|e| e.process == process).map(|e| e.seq).collect();
        assert_eq!(seqs, (1..=50).collect::<Vec<_>>());
    }
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_broken_line_is_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    fs::write(&path, b"{\"seq\":1,\"at\n\xff\xff\n\n").unwrap();
    let journal = Journal::open(&path, "edge");
    journal.append(Note::new("fine"));
    journal.flush(LONG);
    let entries = read_all(&path).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].event, "fine");
}

#[test]
fn rotation_keeps_what_was_written_and_a_tail_follows_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    let (one, two) = (Journal::open(&path, "edge"), Journal::open(&path, "daemon"));
    one.append(Note::new("before"));
    one.flush(LONG);
    let mut tail = Tail::at_start(&path);
    assert_eq!(tail.poll().len(), 1);
    // Grow the file over the limit with something that is no entry.
    let filler = vec![b'x'; usize::try_from(write::ROTATE_AT).unwrap()];
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(&filler).unwrap();
    file.write_all(b"\n").unwrap();
    two.append(Note::new("after"));
    two.flush(LONG);
    one.append(Note::new("last"));
    one.flush(LONG);
    let events: Vec<_> = read_all(&path).unwrap().into_iter().map(|e| e.event).collect();
    assert_eq!(events, ["before", "after", "last"]);
    assert!(fs::metadata(&path).unwrap().len() < 4096, "a new file");
    let events: Vec<_> = tail.poll().into_iter().map(|e| e.event).collect();
    assert_eq!(events, ["after", "last"]);
}

#[test]
fn an_unwritable_place_is_counted_and_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("missing").join("events.jsonl");
    let journal = Journal::open(&path, "edge");
    let mut listener = journal.listen();
    journal.append(Note::new("lost"));
    journal.flush(LONG);
    assert_eq!(journal.lost(), 1);
    assert_eq!(listener.try_recv().unwrap().event, "lost");
}
