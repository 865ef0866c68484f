//! Variables that look like ours and that nobody reads: a misspelt one would change nothing, without a word.

use super::keys::KEYS;
use super::layers::nearest;
use super::own::NON_LOOPBACK_VAR;
use crate::home::HOME_VAR;
use crate::{inherit, platform};

const PREFIX: &str = "HALTON_METER_";
/// Of our own tests.
const TESTS: &str = "HALTON_METER_TEST_";

/// Those of this process's environment, in words.
#[must_use]
pub fn strays() -> Vec<String> {
    of(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))
}

fn of(names: impl Iterator<Item = String>) -> Vec<String> {
    let keys: Vec<String> = KEYS.iter().map(|key| key.variable()).collect();
    let known = || keys.iter().map(String::as_str).chain([HOME_VAR, NON_LOOPBACK_VAR]);
    let mut strays: Vec<String> = names
        .filter(|name| name.starts_with(PREFIX) && !known().any(|known| known == name))
        .filter(|name| !is_internal(name))
        .collect();
    strays.sort_unstable();
    let said = |name: &String| {
        let near = nearest(name, known());
        let hint = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
        format!("${name} is no setting, and nobody reads it{hint}")
    };
    strays.iter().map(said).collect()
}

/// What our processes and tests tell each other.
fn is_internal(name: &str) -> bool {
    #[cfg(debug_assertions)]
    if name == platform::PLATFORM_VAR {
        return true;
    }
    name.starts_with(TESTS)
        || [inherit::VAR, platform::RECORD_VAR, platform::SYSTEM_ROOT_VAR].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_variable_is_named_and_ours_are_not() {
        let said = |names: &[&str]| of(names.iter().map(|name| (*name).to_owned()));
        let said_of_two = said(&["HALTON_METER_LOGS_LEVEL", "PATH", "HALTON_METER_EDGE_PROT"]);
        assert_eq!(
            said_of_two,
            [
                "$HALTON_METER_EDGE_PROT is no setting, and nobody reads it \
                 (did you mean HALTON_METER_EDGE_PORT?)",
                "$HALTON_METER_LOGS_LEVEL is no setting, and nobody reads it \
                 (did you mean HALTON_METER_LOG_LEVEL?)",
            ]
        );
        let far = said(&["HALTON_METER_COLOUR_OF_THE_SKY"]);
        assert!(far.iter().all(|line| !line.contains("did you mean")), "{far:?}");
        let keys: Vec<String> = KEYS.iter().map(|key| key.variable()).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        assert!(said(&keys).is_empty());
        let own =
            [HOME_VAR, NON_LOOPBACK_VAR, inherit::VAR, platform::RECORD_VAR, "HALTON_PROJECT"];
        assert!(said(&own).is_empty());
    }
}
