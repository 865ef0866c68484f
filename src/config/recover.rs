//! What can be read of a file that is not TOML: all its statements but those that are wrong. By TOML's own
//! rules one typo is the whole file, the proxy that is the only way out with it.

use toml::de::DeTable;

use super::keys::KEYS;

/// Whoever opened another kind of file needs no more.
const MAX_SAID: usize = 20;

/// Bytes that are parsed in search of the end of statements over several lines. Only a file that opens
/// many brackets and closes none comes near it.
const SEARCH: usize = 4 << 20;

/// A valid text of those statements.
#[derive(Debug)]
pub struct Recovered {
    pub text: String,
    /// For each line of `text`, its line in the file.
    pub lines: Vec<usize>,
    /// Line in the file, and what is wrong there.
    pub wrong: Vec<(usize, String)>,
}

/// A statement, its line breaks included.
#[derive(Clone, Copy)]
struct Statement<'a> {
    line: usize,
    text: &'a str,
}

/// A header with what stands below it; in front of the first there is none.
struct Section<'a> {
    header: Option<(usize, String)>,
    statements: Vec<Statement<'a>>,
}

/// `error` is what TOML says of the whole.
pub fn recover(text: &str, error: &toml::de::Error) -> Recovered {
    let mut wrong = Vec::new();
    let mut sections = split(text.trim_start_matches('\u{feff}'), &mut wrong);
    // Each is valid by itself; a key that is there twice shows only now.
    let (text, lines) = loop {
        let (text, lines) = compose(&sections);
        let (_, errors) = DeTable::parse_recoverable(&text);
        if errors.is_empty() || lines.is_empty() {
            break (text, lines);
        }
        for e in errors {
            let offset = e.span().map_or(0, |span| span.start).min(text.len());
            let index = text.as_bytes()[..offset].iter().filter(|b| **b == b'\n').count();
            let Some(line) = lines.get(index).or(lines.last()) else { continue };
            wrong.push((*line, e.message().to_owned()));
            leave_out(&mut sections, *line);
        }
    };
    if wrong.is_empty() {
        wrong.push((1, error.message().to_owned()));
    }
    wrong.sort();
    wrong.truncate(MAX_SAID);
    Recovered { text, lines, wrong }
}

fn split<'a>(text: &'a str, wrong: &mut Vec<(usize, String)>) -> Vec<Section<'a>> {
    let mut starts = vec![0];
    starts.extend(text.split_inclusive('\n').scan(0, |end, line| {
        *end += line.len();
        Some(*end)
    }));
    let mut sections = vec![Section { header: None, statements: Vec::new() }];
    // None below a header of which nobody knows what it meant.
    let mut current = Some(0);
    let mut search = SEARCH;
    let mut continues = false;
    let mut index = 0;
    while index + 1 < starts.len() {
        let (line, rest) = (index + 1, &starts[index..]);
        match statement(text, rest, &mut search) {
            Ok(found) => {
                continues = false;
                index += found.text.split_inclusive('\n').count();
                if let Some(header) = header(found.text) {
                    current = Some(open(&mut sections, line, header, wrong));
                } else if let Some(section) = current {
                    sections[section].statements.push(Statement { line, ..found });
                }
            }
            Err(message) => {
                index += 1;
                let said = text.get(rest[0]..rest[1]).unwrap_or_default();
                let meant = meant(said);
                // What is left of an array without its end is no mistake of its own.
                let of_the_last = continues && meant.is_none() && !said.contains('=');
                continues = true;
                if of_the_last {
                    continue;
                }
                if let Some(name) = meant {
                    current = Some(open(&mut sections, line, format!("[{name}]"), &mut Vec::new()));
                    wrong.push((line, message));
                } else if said.trim_start().starts_with('[') {
                    current = None;
                    let lost = "what follows up to the next [section] is not used";
                    wrong.push((line, format!("{message}; {lost}")));
                } else {
                    wrong.push((line, message));
                }
            }
        }
    }
    sections
}

/// The first of these lines, and as many more as make it whole; else what is wrong with it.
fn statement<'a>(
    text: &'a str,
    starts: &[usize],
    search: &mut usize,
) -> Result<Statement<'a>, String> {
    let up_to = |end: usize| text.get(starts[0]..end).unwrap_or_default();
    let first = up_to(starts[1]);
    let Err(e) = DeTable::parse(first) else { return Ok(Statement { line: 0, text: first }) };
    let has = |line: &str, marks: [&str; 4]| marks.iter().any(|mark| line.contains(mark));
    if has(first, ["[", "{", "\"\"\"", "'''"]) {
        for bounds in starts[1..].windows(2) {
            let (longer, last) = (up_to(bounds[1]), text.get(bounds[0]..bounds[1]));
            if !has(last.unwrap_or_default(), ["]", "}", "\"\"\"", "'''"]) {
                continue;
            }
            let Some(left) = search.checked_sub(longer.len()) else { break };
            *search = left;
            if DeTable::parse(longer).is_ok() {
                return Ok(Statement { line: 0, text: longer });
            }
        }
    }
    Err(e.message().to_owned())
}

/// Of a statement that is one.
fn header(text: &str) -> Option<String> {
    let bare = text.split('#').next().unwrap_or_default().trim();
    bare.starts_with('[').then(|| bare.chars().filter(|c| !c.is_whitespace()).collect())
}

/// The section that a broken header is of: `[edge`, `edge]`, `[edge}`.
fn meant(line: &str) -> Option<&str> {
    let line = line.split('#').next()?.trim();
    let bare = line.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let is_section = KEYS.iter().any(|key| key.name.split('.').next() == Some(bare));
    // The last line of an array has quotes.
    let brackets = (line.starts_with('[') || line.ends_with(']')) && !line.contains(['"', '\'']);
    (brackets && is_section).then_some(bare)
}

/// A header that is there twice is wrong, and easily meant: the keys of both count.
fn open(
    sections: &mut Vec<Section<'_>>,
    line: usize,
    header: String,
    wrong: &mut Vec<(usize, String)>,
) -> usize {
    let same = |s: &Section<'_>| s.header.as_ref().is_some_and(|(_, known)| *known == header);
    if !header.starts_with("[[")
        && let Some(there) = sections.iter().position(same)
    {
        wrong.push((line, format!("{header} is there twice")));
        return there;
    }
    sections.push(Section { header: Some((line, header)), statements: Vec::new() });
    sections.len() - 1
}

fn compose(sections: &[Section<'_>]) -> (String, Vec<usize>) {
    let (mut text, mut lines) = (String::new(), Vec::new());
    for section in sections {
        let header = section.header.as_ref().map(|(line, text)| (*line, text.as_str()));
        let statements = section.statements.iter().map(|s| (s.line, s.text));
        for (line, said) in header.into_iter().chain(statements) {
            text.push_str(said);
            if !said.ends_with('\n') {
                text.push('\n');
            }
            lines.extend((line..).take(said.split_inclusive('\n').count()));
        }
    }
    (text, lines)
}

/// A statement, or a header with all below it.
fn leave_out(sections: &mut Vec<Section<'_>>, line: usize) {
    sections.retain(|s| s.header.as_ref().is_none_or(|(at, _)| *at != line));
    for section in sections {
        section
            .statements
            .retain(|s| !(s.line..s.line + s.text.split_inclusive('\n').count()).contains(&line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DEFAULTS, load_from};

    /// What is read of it: `key = value  # line`, without the defaults; and the lines that are wrong.
    fn read(text: &str) -> (Vec<String>, Vec<usize>) {
        let loaded = load_from(Some(("".as_ref(), text)), |_| None, &[]);
        let values = loaded.values.iter().map(|(k, v, o)| (format!("{} = {v}", k.name), o));
        let line = |o: &crate::config::Origin| match o {
            crate::config::Origin::File { line, .. } => Some(*line),
            crate::config::Origin::Default
            | crate::config::Origin::Environment { .. }
            | crate::config::Origin::Flag => None,
        };
        let said = values.filter_map(|(said, o)| Some(format!("{said}  # {}", line(o)?)));
        (said.collect(), loaded.problems.iter().filter_map(|p| line(&p.origin)).collect())
    }

    const PROXY: &str = "upstream.proxy = \"http://p:1\"";

    #[test]
    fn one_wrong_line_is_one_wrong_line() {
        let proxy = "[upstream]\nproxy = \"http://p:1\"\n";
        for wrong in [
            "level = debug",
            "level = ",
            "level",
            "level = \"debug",
            "= \"debug\"",
            "level \"debug\"",
            "level = \"\\q\"",
            "level = [\"debug\"",
            "level = {",
            "level = \"\"\"debug",
            "level = \"debug\" proxy = 1",
            "\u{1}",
        ] {
            let (said, lines) = read(&format!("{proxy}[log]\n{wrong}"));
            assert_eq!((said, lines), (vec![format!("{PROXY}  # 2")], vec![4]), "last: {wrong}");
            let (said, lines) = read(&format!("[log]\n{wrong}\n{proxy}"));
            assert_eq!((said, lines), (vec![format!("{PROXY}  # 4")], vec![2]), "first: {wrong}");
        }
    }

    #[test]
    fn a_value_without_its_end_takes_nothing_with_it() {
        let text = "[upstream]\nno_proxy = [\n  \"a\",\n  \"b\"\nproxy = \"http://p:1\"\n[edge]\nport = 1\n";
        let said = vec!["edge.port = 1  # 7".to_owned(), format!("{PROXY}  # 5")];
        assert_eq!(read(text), (said, vec![2]));
        let text = "[upstream]\nno_proxy = [\n  a,\n  \"log\"]\nproxy = \"http://p:1\"\n";
        assert_eq!(read(text), (vec![format!("{PROXY}  # 5")], vec![2]));
        let whole = "[log]\nlevel = \n[upstream]\nno_proxy = [ # two\n  \"a\",\n\n  \"b\" ]\nproxy = \"http://p:1\"\n";
        let said =
            vec![format!("{PROXY}  # 8"), "upstream.no_proxy = [\"a\", \"b\"]  # 4".to_owned()];
        assert_eq!(read(whole), (said, vec![2]));
    }

    #[test]
    fn a_broken_header_is_read_as_it_was_meant() {
        for header in [
            "[upstream",
            "[upstream # mine",
            "upstream]",
            "[upstream}",
            "[upstream]]",
            "[[upstream]",
        ] {
            let text = format!("[edge]\nport = 1\n{header}\nproxy = \"http://p:1\"\n");
            let said = vec!["edge.port = 1  # 2".to_owned(), format!("{PROXY}  # 4")];
            assert_eq!(read(&text), (said, vec![3]), "{header}");
        }
        let text = "[edge]\n[upstraem\nport = 1\n[upstream]\nproxy = \"http://p:1\"\n";
        assert_eq!(read(text), (vec![format!("{PROXY}  # 5")], vec![2]));
    }

    #[test]
    fn what_is_there_twice_is_read_once() {
        let text = "[upstream]\nno_proxy = []\n[edge]\nport = 1\nport = 2\n[ upstream ] # again\n\
                    proxy = \"http://p:1\"\nno_proxy = [\"a\"]\n";
        let said = vec![
            "edge.port = 1  # 4".to_owned(),
            format!("{PROXY}  # 7"),
            "upstream.no_proxy = []  # 2".to_owned(),
        ];
        assert_eq!(read(text), (said, vec![5, 6, 8]));
    }

    #[test]
    fn every_statement_of_a_whole_text_is_found() {
        let text = format!("{DEFAULTS}[upstream.more]\n\"*:1\" = \"a\"\n");
        let (said, lines) = read(&format!("{text}=\n"));
        let (before, _) = read(&text);
        assert_eq!(said, before);
        assert_eq!(lines.first(), Some(&(text.lines().count() + 1)));
        let windows = "\u{feff}[upstream]\r\nproxy = \"http://p:1\"\r\n[log]\r\nlevel =\r\n";
        assert_eq!(read(windows), (vec![format!("{PROXY}  # 2")], vec![4]));
    }

    #[test]
    fn what_is_no_configuration_at_all_is_said_briefly() {
        let (said, lines) = read(&"<p class=x>\n".repeat(5000));
        assert_eq!((said, lines.len()), (vec![], MAX_SAID));
        let (said, lines) = read(&format!("[edge]\n{}", "port = 1\n".repeat(3000)));
        assert_eq!((said, lines.len()), (vec!["edge.port = 1  # 2".to_owned()], MAX_SAID));
        let (said, _) = read(&"x = [ ]]\n".repeat(3000));
        assert_eq!(said, Vec::<String>::new());
    }
}
