//! The network services, for who takes back what we set there: one that can't be read keeps no other from it.

use std::net::SocketAddr;

use crate::platform::{NetworkService, SystemProxy};
use crate::setup::SystemState;

#[derive(Debug, Default, Eq, PartialEq)]
pub struct Services {
    pub found: Vec<NetworkService>,
    /// Names of those that we led to the edge and that can't be read, or why none can.
    pub unread: Vec<String>,
}

impl Services {
    /// `led`: we have led some to the edge.
    pub fn look(proxy: &dyn SystemProxy, led: bool, was: &SystemState) -> Self {
        if let Ok(found) = proxy.read() {
            return Self { found: found.unwrap_or_default(), unread: Vec::new() };
        }
        if !led {
            return Self::default();
        }
        match proxy.read_in_part() {
            Err(e) => Self { found: Vec::new(), unread: vec![e.to_string()] },
            Ok((found, mut unread)) => {
                // Without a record it can't be told which were ours.
                if let Some(ours) = &was.proxy {
                    unread.retain(|name| ours.iter().any(|service| service.name == *name));
                }
                Self { found, unread }
            }
        }
    }

    /// What can't be read can't be put back: it goes off. Before the rest, which sets again what was on.
    pub fn off(proxy: &dyn SystemProxy, edge: SocketAddr, unread: &[String]) -> Result<(), String> {
        if unread.is_empty() {
            return Ok(());
        }
        proxy.off_where_it_leads_to(edge, true).map(drop).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::SystemProxyError;

    /// Which services can be read, and which can't.
    struct Net(Vec<&'static str>, Option<Vec<&'static str>>);

    fn service(name: &str) -> NetworkService {
        NetworkService { name: name.to_owned(), ..NetworkService::default() }
    }

    fn unclear() -> SystemProxyError {
        SystemProxyError::Unclear { call: "x".to_owned(), said: String::new() }
    }

    impl SystemProxy for Net {
        fn off(&self) -> Result<Option<Vec<String>>, SystemProxyError> {
            panic!("everybody's")
        }

        fn read(&self) -> Result<Option<Vec<NetworkService>>, SystemProxyError> {
            let bad = self.1.as_ref().is_none_or(|unread| !unread.is_empty());
            if bad { Err(unclear()) } else { Ok(Some(self.0.iter().map(|n| service(n)).collect())) }
        }

        fn read_in_part(&self) -> Result<(Vec<NetworkService>, Vec<String>), SystemProxyError> {
            let unread = self.1.as_ref().ok_or_else(unclear)?;
            let found = self.0.iter().map(|name| service(name)).collect();
            Ok((found, unread.iter().map(|name| (*name).to_owned()).collect()))
        }
    }

    #[test]
    fn only_what_was_ours_and_can_t_be_read_is_in_the_way() {
        let was = |names: &[&str]| SystemState {
            proxy: Some(names.iter().map(|name| service(name)).collect()),
            ..SystemState::default()
        };
        let look = |net: &Net, led, was: &SystemState| {
            let Services { found, unread } = Services::look(net, led, was);
            (found.len(), unread)
        };
        let well = Net(vec!["A", "B"], Some(Vec::new()));
        assert_eq!(look(&well, true, &was(&["A"])), (2, vec![]));
        let one = Net(vec!["A"], Some(vec!["B"]));
        assert_eq!(look(&one, false, &SystemState::default()), (0, vec![]), "nothing of ours");
        assert_eq!(look(&one, true, &was(&["A"])), (1, vec![]));
        assert_eq!(look(&one, true, &was(&["A", "B"])), (1, vec!["B".to_owned()]));
        assert_eq!(look(&one, true, &SystemState::default()), (1, vec!["B".to_owned()]));
        let (found, unread) = look(&Net(vec![], None), true, &was(&["A"]));
        assert_eq!((found, unread.len()), (0, 1), "not even the list");
    }
}
