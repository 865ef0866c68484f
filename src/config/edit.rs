//! Changes one value in the text of a configuration file; the rest stays as the user wrote it.

use std::path::Path;

use toml::de::DeTable;

use super::load_from;

/// `text` with `section.name` set to a TOML `value`. `None`: the text is broken, or has a form that we
/// don't change.
#[must_use]
pub fn with_value(text: &str, key: &str, value: &str) -> Option<String> {
    let (section, name) = key.split_once('.')?;
    let table = DeTable::parse(text).ok()?.into_inner();
    let body = table.iter().find(|(k, _)| k.get_ref() == section).map(|(_, v)| v);
    let there = body
        .and_then(|b| b.get_ref().as_table())
        .and_then(|keys| keys.iter().find(|(k, _)| k.get_ref() == name));
    let line = format!("{name} = {value}\n");
    let edited = match (there, body) {
        (Some((_, old)), _) => {
            let span = old.span();
            format!("{}{value}{}", text.get(..span.start)?, text.get(span.end..)?)
        }
        (None, Some(_)) => {
            let end = header_end(text, section)?;
            format!("{}{line}{}", text.get(..end)?, text.get(end..)?)
        }
        (None, None) => {
            let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            format!("{text}{gap}[{section}]\n{line}")
        }
    };
    // Whatever form the text had: the outcome must say what is wanted, and nothing new that is wrong.
    let check = |text: &str| load_from(Some((Path::new(""), text)), |_| None, &[]);
    let (before, after) = (check(text), check(&edited));
    let wanted = format!("{key} = {value}");
    let says = after.values.iter().any(|(k, v, _)| format!("{} = {v}", k.name) == wanted);
    (says && after.problems.len() <= before.problems.len()).then_some(edited)
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
        assert_eq!(with_value("[edge\n", "edge.port", "9000"), None);
        assert_eq!(with_value("edge = {}\n", "edge.port", "9000"), None);
        assert_eq!(with_value("", "edge.port", "0"), None);
        assert_eq!(with_value("", "edge.other", "1"), None);
    }
}
