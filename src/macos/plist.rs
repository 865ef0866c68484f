//! Property lists as launchd reads them: XML, as little of it as agents need.

use std::fmt::Write;

/// A value in a property list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value {
    Bool(bool),
    Integer(u32),
    String(String),
    Array(Vec<Value>),
    Dict(Vec<(&'static str, Value)>),
    /// With keys of the user's.
    Map(Vec<(String, Value)>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
    <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
    \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n<plist version=\"1.0\">\n";

/// The whole file. `None`: a text in it can't stand in XML (control characters).
#[must_use]
pub fn render(root: &Value) -> Option<String> {
    let mut out = HEAD.to_owned();
    put(&mut out, root, 0)?;
    out.push_str("</plist>\n");
    Some(out)
}

/// The string behind `key`, or the strings of its array, in a file that [`render`] made.
#[must_use]
pub fn strings(text: &str, key: &str) -> Vec<String> {
    let after = text.split_once(&format!("<key>{key}</key>")).map_or("", |(_, after)| after);
    // What follows belongs to another key.
    let own = after.split_once("<key>").map_or(after, |(own, _)| own);
    let values = own.split("<string>").skip(1);
    values.filter_map(|v| v.split_once("</string>")).map(|(v, _)| plain(v)).collect()
}

/// The dictionary behind one of the outermost keys, as it is written, in a file that [`render`] made.
#[must_use]
pub fn dict<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(&format!("\n\t<key>{key}</key>\n\t<dict>\n"))?;
    // What is deeper has more tabs.
    let end = if after.starts_with("\t</dict>") { 0 } else { after.find("\n\t</dict>")? };
    after.get(..end)
}

fn put(out: &mut String, value: &Value, depth: usize) -> Option<()> {
    let indent = "\t".repeat(depth);
    match value {
        Value::Bool(true) => writeln!(out, "{indent}<true/>").ok()?,
        Value::Bool(false) => writeln!(out, "{indent}<false/>").ok()?,
        Value::Integer(n) => writeln!(out, "{indent}<integer>{n}</integer>").ok()?,
        Value::String(text) => writeln!(out, "{indent}<string>{}</string>", escaped(text)?).ok()?,
        Value::Array(items) => {
            writeln!(out, "{indent}<array>").ok()?;
            for item in items {
                put(out, item, depth + 1)?;
            }
            writeln!(out, "{indent}</array>").ok()?;
        }
        Value::Dict(pairs) => {
            put_pairs(out, pairs.iter().map(|(key, value)| (*key, value)), depth)?;
        }
        Value::Map(pairs) => {
            put_pairs(out, pairs.iter().map(|(key, value)| (key.as_str(), value)), depth)?;
        }
    }
    Some(())
}

fn put_pairs<'a>(
    out: &mut String,
    pairs: impl Iterator<Item = (&'a str, &'a Value)>,
    depth: usize,
) -> Option<()> {
    let indent = "\t".repeat(depth);
    writeln!(out, "{indent}<dict>").ok()?;
    for (key, value) in pairs {
        writeln!(out, "{indent}\t<key>{}</key>", escaped(key)?).ok()?;
        put(out, value, depth + 1)?;
    }
    writeln!(out, "{indent}</dict>").ok()
}

fn escaped(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\t' | '\n' => out.push(c),
            // A bare one would be read as a line end.
            '\r' => out.push_str("&#13;"),
            '\u{fffe}' | '\u{ffff}' => return None,
            c if c.is_ascii_control() => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

fn plain(text: &str) -> String {
    // The ampersand last: what it makes is not to be read again.
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&#13;", "\r");
    text.replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    /// What Python's plistlib reads, as JSON.
    fn read(text: &str) -> serde_json::Value {
        let script =
            "import json,plistlib,sys;print(json.dumps(plistlib.loads(sys.stdin.buffer.read())))";
        let mut python = Command::new("python3")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        python.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = python.wait_with_output().unwrap();
        assert!(output.status.success(), "{text}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[test]
    fn another_reader_finds_what_was_meant() {
        let odd = "/Users/a & b/<x>\"'é\n\t\r]]>";
        let root = Value::Dict(vec![
            ("Text", odd.into()),
            ("Yes", Value::Bool(true)),
            ("No", Value::Bool(false)),
            ("Number", Value::Integer(30)),
            ("Words", Value::Array(vec!["a".into(), odd.into()])),
            ("Map", Value::Map(vec![(odd.to_owned(), odd.into())])),
        ]);
        let expected = serde_json::json!({
            "Text": odd, "Yes": true, "No": false, "Number": 30, "Words": ["a", odd], "Map": { odd: odd },
        });
        assert_eq!(read(&render(&root).unwrap()), expected);
    }

    #[test]
    fn only_the_keys_own_value_is_read() {
        let root = Value::Dict(vec![
            ("RunAtLoad", Value::Bool(true)),
            ("ProgramArguments", Value::Array(vec!["/a &lt; b".into(), "edge".into()])),
        ]);
        let text = render(&root).unwrap();
        assert_eq!(strings(&text, "ProgramArguments"), ["/a &lt; b", "edge"]);
        assert_eq!(strings(&text, "RunAtLoad"), [""; 0]);
        assert_eq!(strings("bplist00", "ProgramArguments"), [""; 0]);
    }

    #[test]
    fn a_dictionary_ends_where_it_ends() {
        let inner = Value::Dict(vec![("Port", "1".into())]);
        let root = |inner: &Value| {
            let empty = Value::Map(Vec::new());
            let sockets = Value::Dict(vec![("proxy", inner.clone()), ("last", "<&".into())]);
            render(&Value::Dict(vec![("Empty", empty), ("Sockets", sockets), ("Port", "2".into())]))
        };
        let text = root(&inner).unwrap();
        let sockets = dict(&text, "Sockets").unwrap();
        assert!(sockets.starts_with("\t\t<key>proxy</key>") && sockets.ends_with("</string>"));
        assert!(sockets.contains("<string>1</string>") && !sockets.contains("<string>2</string>"));
        assert_eq!(dict(&text, "Empty"), Some(""));
        assert_eq!([dict(&text, "proxy"), dict(&text, "Port"), dict("", "Sockets")], [None; 3]);
        let other = root(&Value::Dict(vec![("Port", "3".into())])).unwrap();
        assert_ne!(dict(&other, "Sockets"), Some(sockets));
    }

    proptest! {
        #[test]
        fn any_text_comes_back_or_is_refused(text in any::<String>()) {
            match render(&Value::Dict(vec![("Key", text.as_str().into())])) {
                Some(out) => prop_assert_eq!(strings(&out, "Key"), [text]),
                None => {
                    let odd = text.chars().any(|c| c.is_control() || c >= '\u{fffe}');
                    prop_assert!(odd);
                }
            }
        }
    }
}
