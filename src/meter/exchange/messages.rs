//! Bodies that are messages in envelopes, and who reads them.

use crate::meter::surface::cursor::asked_model;
use crate::meter::surface::grpc::{self, Method};
use crate::meter::surface::{Kind, Route};

/// The service of Cursor's whose messages others have read before.
const CURSOR_AGENT: &str = "/agent.v1.AgentService/";
/// What Cursor's agent says of its usage is short; what is longer is passed over.
const MAX_OF_CURSOR: usize = 64 * 1024;

/// What the messages of an exchange are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Messages {
    Cursor,
    Call(&'static Method),
}

impl Messages {
    pub(super) fn of(route: &Route, path: &str) -> Option<Self> {
        let kind = route.kind?;
        if kind == Kind::Cursor {
            return path.contains(CURSOR_AGENT).then_some(Self::Cursor);
        }
        grpc::method(path).map(Self::Call)
    }

    /// Whether the request has them too: Cursor's other ways to ask send it by another path.
    pub(super) fn are_asked(self, path: &str) -> bool {
        match self {
            Self::Cursor => path.ends_with("/Run"),
            Self::Call(_) => true,
        }
    }

    /// Whether a response of this type has them, whatever Cursor calls them.
    pub(super) fn are_in(self, media: &str) -> bool {
        match self {
            Self::Cursor => !media.contains("/json"),
            Self::Call(_) => media.starts_with("application/grpc"),
        }
    }

    /// The longest that is read of an answer.
    pub(super) const fn longest(self) -> usize {
        match self {
            Self::Cursor => MAX_OF_CURSOR,
            Self::Call(_) => grpc::MAX_ANSWER,
        }
    }

    /// The model that a message of the request asks, and what it reads back.
    pub(super) fn asked(self, message: &[u8]) -> (Option<String>, Option<String>) {
        match self {
            Self::Cursor => (asked_model(message), None),
            Self::Call(method) => (method.model(message), method.subject(message)),
        }
    }
}
