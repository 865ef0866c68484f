//! The desktop's proxy setting, as GNOME and what follows it keep it. Only read: programs disagree on
//! whether they obey it, so we never set it.

use std::process::{Command, Stdio};

use crate::platform::{SystemProxy, SystemProxyError};

const SCHEMA: &str = "org.gnome.system.proxy";

#[derive(Clone, Copy, Debug)]
pub struct Gnome;

impl SystemProxy for Gnome {
    fn off(&self) -> Result<Option<Vec<String>>, SystemProxyError> {
        Ok(None)
    }

    fn leads_to(&self) -> Vec<String> {
        leads_to(&get)
    }

    fn exceptions(&self) -> Vec<String> {
        list(&get(SCHEMA, "ignore-hosts").unwrap_or_default())
    }
}

fn get(schema: &str, key: &str) -> Option<String> {
    let mut command = Command::new("gsettings");
    command.args(["get", schema, key]).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// `['localhost', '127.0.0.0/8']`
pub(crate) fn list(text: &str) -> Vec<String> {
    let items = text.split(',').map(|item| item.trim_matches(|c| " []'\"".contains(c)));
    items.filter(|item| !item.is_empty() && !item.starts_with('@')).map(str::to_owned).collect()
}

/// `host:port` of the HTTPS and HTTP proxies, HTTPS first.
fn leads_to(get: &dyn Fn(&str, &str) -> Option<String>) -> Vec<String> {
    if get(SCHEMA, "mode").as_deref() != Some("'manual'") {
        return Vec::new();
    }
    let of = |kind: &str| {
        let schema = format!("{SCHEMA}.{kind}");
        let host = get(&schema, "host")?;
        let host = host.trim_matches('\'');
        let port: u16 = get(&schema, "port")?.parse().ok().filter(|port| *port != 0)?;
        (!host.is_empty()).then(|| format!("{host}:{port}"))
    };
    let mut found: Vec<_> = ["https", "http"].into_iter().filter_map(of).collect();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(mode: &'static str) -> impl Fn(&str, &str) -> Option<String> {
        move |schema, key| {
            let text = match (schema, key) {
                (SCHEMA, "mode") => mode,
                ("org.gnome.system.proxy.https", "host") => "'proxy.corp'",
                ("org.gnome.system.proxy.https", "port") => "3128",
                ("org.gnome.system.proxy.http", "host") => "''",
                ("org.gnome.system.proxy.http", "port") => "0",
                _ => return None,
            };
            Some(text.to_owned())
        }
    }

    #[test]
    fn a_list_is_a_list() {
        assert_eq!(
            list("['localhost', '127.0.0.0/8', '*.corp']"),
            ["localhost", "127.0.0.0/8", "*.corp"]
        );
        assert_eq!(list("@as []"), [""; 0]);
    }

    #[test]
    fn only_a_manual_setting_leads_somewhere() {
        assert_eq!(leads_to(&answer("'manual'")), ["proxy.corp:3128"]);
        assert_eq!(leads_to(&answer("'none'")), [""; 0]);
        assert_eq!(leads_to(&answer("'auto'")), [""; 0]);
        assert_eq!(leads_to(&|_, _| None), [""; 0], "no such desktop");
    }
}
