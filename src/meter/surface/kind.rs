//! The API surfaces, by name.

/// Who invented the shape, whether it asks a model for something, and the name in the ledger.
struct Facts {
    name: Option<&'static str>,
    family: Option<&'static str>,
    asks_model: bool,
}

/// One table of all surfaces: the enum, and what is known of each.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:expr, $family:expr, $asks:expr;)+) => {
        /// An API surface.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum Kind { $($(#[$doc])* $kind),+ }

        impl Kind {
            const ALL: &'static [Self] = &[$(Self::$kind),+];

            const fn facts(self) -> Facts {
                match self {
                    $(Self::$kind => Facts { name: $name, family: $family, asks_model: $asks }),+
                }
            }
        }
    };
}

kinds! {
    Messages = Some("anthropic.messages"), Some("anthropic"), true;
    CountTokens = Some("anthropic.count_tokens"), Some("anthropic"), false;
    /// The results of a batch, one JSON line each.
    Batch = Some("anthropic.batch"), Some("anthropic"), false;
    Chat = Some("openai.chat"), Some("openai"), true;
    Completions = Some("openai.completions"), Some("openai"), true;
    Responses = Some("openai.responses"), Some("openai"), true;
    /// Over a WebSocket only.
    Realtime = Some("openai.realtime"), Some("openai"), true;
    /// Questions with a few answers each.
    Decisions = Some("openai.decisions"), Some("openai"), true;
    /// A session that is spoken with, or translated; what is said there is not read.
    LiveSession = Some("openai.live"), Some("openai"), true;
    InputTokens = Some("openai.input_tokens"), Some("openai"), false;
    Embeddings = Some("openai.embeddings"), Some("openai"), true;
    /// Documents by how well they answer; nobody's in particular.
    Rerank = Some("rerank"), None, true;
    Images = Some("openai.images"), Some("openai"), true;
    Audio = Some("openai.audio"), Some("openai"), true;
    /// A video, which is made behind the answer.
    Video = Some("openai.videos"), Some("openai"), true;
    /// A training, likewise.
    FineTuning = Some("openai.fine_tuning"), Some("openai"), true;
    /// A file that may be the output of a batch.
    BatchFile = Some("openai.batch"), Some("openai"), false;
    Gemini = Some("gemini.generate"), Some("google"), true;
    GeminiEmbed = Some("gemini.embed"), Some("google"), true;
    GeminiPredict = Some("gemini.predict"), Some("google"), true;
    /// A video, which is made behind the answer.
    GeminiVideo = Some("gemini.video"), Some("google"), true;
    /// A turn of a session over a WebSocket.
    Live = Some("gemini.live"), Some("google"), true;
    GeminiCountTokens = Some("gemini.count_tokens"), Some("google"), false;
    /// The answers of a batch that are in it, not in a file.
    GeminiBatch = Some("gemini.batch"), Some("google"), false;
    Interactions = Some("gemini.interactions"), Some("google"), true;
    /// What is kept for requests to come, at so much an hour.
    Cache = Some("gemini.cache"), Some("google"), true;
    CodeAssist = Some("gemini.code_assist"), Some("google"), true;
    CodeAssistQuota = Some("gemini.quota"), Some("google"), false;
    Converse = Some("bedrock.converse"), None, true;
    /// The model's own shape, whatever it is.
    Invoke = Some("bedrock.invoke"), None, true;
    BedrockCountTokens = Some("bedrock.count_tokens"), None, false;
    Cohere = Some("cohere.chat"), Some("cohere"), true;
    Ocr = Some("mistral.ocr"), Some("mistral"), true;
    /// Moderations and classifications.
    Moderation = Some("mistral.moderations"), Some("mistral"), true;
    Speech = Some("minimax.speech"), Some("minimax"), true;
    /// A search of the web, without a model that reads what it finds.
    Search = Some("perplexity.search"), Some("perplexity"), true;
    Ollama = Some("ollama.chat"), None, true;
    Cursor = Some("cursor.agent"), None, true;
    /// A call whose answers are not read.
    Grpc = Some("grpc"), None, true;
    /// A POST to a host that we don't know: the shape of the response decides.
    Unknown = None, None, false;
}

impl Kind {
    /// The name in the ledger; `None` until the shape is known.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        self.facts().name
    }

    /// Whose models are called through this surface when the host is nobody's we know.
    #[must_use]
    pub const fn family(self) -> Option<&'static str> {
        self.facts().family
    }

    /// The surface that the ledger calls `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == Some(name))
    }

    /// Side calls don't: counting, files, quotas, and what isn't known yet.
    pub(super) const fn asks_model(self) -> bool {
        self.facts().asks_model
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lead_back() {
        for kind in Kind::ALL {
            if let Some(name) = kind.name() {
                assert_eq!(Kind::named(name), Some(*kind));
            }
        }
        assert_eq!(Kind::named("no such"), None);
    }
}
