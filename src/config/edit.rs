//! Changes one value in the text of a configuration file; the rest stays as the user wrote it.

use std::path::Path;

use toml::de::DeTable;

use super::layers::NOT_TOML;
use super::{Origin, load_from};

/// Why a text stays as it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refused {
    /// It is not TOML, in this line.
    Broken { line: usize, message: String },
    /// It has a form that we don't change.
    Form,
    /// The value would be wrong, or make another one wrong.
    Wrong(String),
}

/// `text` with `section.name` set to a TOML `value`.
pub fn with_value(text: &str, key: &str, value: &str) -> Result<String, Refused> {
    let check = |text: &str| load_from(Some((Path::new(""), text)), |_| None, &[]);
    let before = check(text);
    if let Some(broken) = before.problems.iter().find(|p| p.message.starts_with(NOT_TOML)) {
        let line = match broken.origin {
            Origin::File { line, .. } => line,
            Origin::Default | Origin::Environment { .. } | Origin::Flag => 0,
        };
        return Err(Refused::Broken { line, message: broken.message.clone() });
    }
    let edited = edited(text, key, value).ok_or(Refused::Form)?;
    // Whatever form the text had: the outcome must say what is wanted, and nothing new that is wrong.
    let after = check(&edited);
    let known = |message: &str| before.problems.iter().any(|p| p.message == message);
    if let Some(new) = after.problems.iter().find(|p| !known(&p.message)) {
        let broke = new.message.starts_with(NOT_TOML);
        return Err(if broke { Refused::Form } else { Refused::Wrong(new.message.clone()) });
    }
    let wanted = format!("{key} = {value}");
    let says = after.values.iter().any(|(k, v, _)| format!("{} = {v}", k.name) == wanted);
    if says { Ok(edited) } else { Err(Refused::Form) }
}

fn edited(text: &str, key: &str, value: &str) -> Option<String> {
    let (section, name) = key.split_once('.')?;
    let table = DeTable::parse(text).ok()?.into_inner();
    let body = table.iter().find(|(k, _)| k.get_ref() == section).map(|(_, v)| v);
    let there = body
        .and_then(|b| b.get_ref().as_table())
        .and_then(|keys| keys.iter().find(|(k, _)| k.get_ref() == name));
    let line = format!("{name} = {value}\n");
    match (there, body) {
        (Some((_, old)), _) => {
            let span = old.span();
            Some(format!("{}{value}{}", text.get(..span.start)?, text.get(span.end..)?))
        }
        (None, Some(_)) => {
            let end = header_end(text, section)?;
            Some(format!("{}{line}{}", text.get(..end)?, text.get(end..)?))
        }
        (None, None) => {
            let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            Some(format!("{text}{gap}[{section}]\n{line}"))
        }
    }
}

/// The place behind the line `[section]`.
fn header_end(text: &str, section: &str) -> Option<usize> {
    let mut end = 0;
    let header = format!("[{section}]");
    text.split_inclusive('\n').find_map(|line| {
        end += line.len();
        let bare = line.split('#').next().unwrap_or_default().trim();
        (bare == header && line.ends_with('\n')).then_some(end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_changes_and_the_rest_stays() {
        let port = |text: &str| with_value(text, "edge.port", "9000");
        assert_eq!(port("").unwrap(), "[edge]\nport = 9000\n");
        assert_eq!(
            port("# mine\n[daemon]\napi_port = 1 # x").unwrap(),
            "# mine\n[daemon]\napi_port = 1 # x\n[edge]\nport = 9000\n"
        );
        assert_eq!(
            port("[edge] # here\nport=8081 # why\n[log]\nlevel = \"info\"\n").unwrap(),
            "[edge] # here\nport=9000 # why\n[log]\nlevel = \"info\"\n"
        );
        assert_eq!(port("[edge]\n").unwrap(), "[edge]\nport = 9000\n");
        assert_eq!(port("edge.port = 1\n").unwrap(), "edge.port = 9000\n");
        assert_eq!(port("edge = { port = 1 }\n").unwrap(), "edge = { port = 9000 }\n");
    }

    #[test]
    fn what_can_not_be_changed_safely_is_not() {
        let port = |text: &str| with_value(text, "edge.port", "9000").unwrap_err();
        let Refused::Broken { line: 2, message } = port("\n[edge\n") else { panic!() };
        assert!(message.starts_with(NOT_TOML), "{message}");
        assert_eq!(port("edge = {}\n"), Refused::Form);
        assert_eq!(with_value("", "edge", "1"), Err(Refused::Form));
    }

    #[test]
    fn what_would_be_wrong_is_said() {
        let wrong = |text: &str, key: &str, value: &str| match with_value(text, key, value) {
            Err(Refused::Wrong(message)) => message,
            other => panic!("{other:?}"),
        };
        assert!(wrong("", "edge.port", "0").starts_with("edge.port: expected"));
        assert!(wrong("", "edge.other", "1").starts_with("unknown key edge.other"));
        let same = "daemon.api_port and edge.port are the same port";
        assert_eq!(wrong("", "daemon.api_port", "8081"), same);
        assert_eq!(wrong("[edge]\nprot = 1\n", "edge.port", "8765"), same);
        let circle = wrong("[edge]\nport = 9000\n", "upstream.proxy", "\"http://127.0.0.1:9000\"");
        assert_eq!(circle, "upstream.proxy is this proxy itself");
    }
}
