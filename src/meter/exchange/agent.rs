//! Which of a session's agents asks, where the client tells: Claude Code and Codex do.

use super::request::short;
use crate::meter::http::Headers;

/// A sub-agent. Of a session's main agent nothing is told, and nothing is here.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Agent {
    pub(super) id: Option<String>,
    /// Who started it: an agent, with Codex the thread.
    pub(super) parent: Option<String>,
    /// What the client calls such agents.
    pub(super) kind: Option<String>,
}

impl Agent {
    pub(super) fn of(headers: &Headers) -> Self {
        let get = |name| headers.get(name).and_then(short);
        let id = get("x-claude-code-agent-id");
        if id.is_some() {
            let kind = get("x-claude-code-agent-type");
            return Self { id, parent: get("x-claude-code-parent-agent-id"), kind };
        }
        let mut agent = Self::default();
        agent.of_codex(
            get("x-openai-subagent"),
            get("x-codex-parent-thread-id"),
            get("thread-id").as_ref(),
        );
        agent
    }

    /// What a request to OpenAI says, in its header or its `client_metadata`.
    pub(super) fn of_codex(
        &mut self,
        kind: Option<String>,
        parent: Option<String>,
        thread: Option<&String>,
    ) {
        if kind.is_some() || parent.is_some() {
            self.id = thread.cloned().or(self.id.take());
            self.kind = kind.or(self.kind.take());
            self.parent = parent.or(self.parent.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(fields: &[(&str, &str)]) -> [Option<String>; 3] {
        let Agent { id, parent, kind } = Agent::of(&fields.iter().copied().collect());
        [id, parent, kind]
    }

    #[test]
    fn sub_agents_of_both_clients() {
        let some = |text: &str| Some(text.to_owned());
        let session = ("x-claude-code-session-id", "s");
        assert_eq!(agent(&[session]), [None, None, None]);
        assert_eq!(
            agent(&[
                session,
                ("x-claude-code-agent-id", "a2"),
                ("x-claude-code-parent-agent-id", "a1"),
                ("x-claude-code-agent-type", "Explore"),
            ]),
            [some("a2"), some("a1"), some("Explore")]
        );
        assert_eq!(agent(&[("x-claude-code-agent-id", "a2")]), [some("a2"), None, None]);
        assert_eq!(agent(&[("session-id", "s"), ("thread-id", "s")]), [None, None, None]);
        assert_eq!(
            agent(&[
                ("session-id", "s"),
                ("thread-id", "t2"),
                ("x-codex-parent-thread-id", "s"),
                ("x-openai-subagent", "collab_spawn"),
            ]),
            [some("t2"), some("s"), some("collab_spawn")]
        );
        assert_eq!(
            agent(&[("thread-id", "t"), ("x-openai-subagent", "review")]),
            [some("t"), None, some("review")]
        );
    }
}
