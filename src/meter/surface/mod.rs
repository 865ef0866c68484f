//! API surfaces: which one a request speaks, and what its responses say of model and usage.
//!
//! Readers are tolerant: numbers may be absent, null, fractional or strings, unknown fields and events
//! are ignored, and nothing that a provider sends can fail a row.

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;

use super::quota::{self, Window};
use super::usage::{Usage, UsageState};

mod anthropic;
mod batch;
mod bedrock;
mod cohere;
mod count;
mod counted;
pub(crate) mod cursor;
mod error;
mod gemini;
pub(crate) mod grpc;
mod interactions;
mod iterations;
mod kind;
mod ollama;
mod openai_chat;
mod openai_responses;
pub(crate) mod protobuf;
mod provider;
mod route;
pub mod scan;
mod sniff;
pub(crate) mod socket;
mod tools;

use counted::{Counted, What};
pub use error::{class_of_error, class_of_status};
pub use kind::Kind;
pub use provider::LOCAL;
pub use route::{Route, route};
use scan::{Found, Paths};

/// What a reader has learned so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The model that answered.
    pub model: Option<String>,
    /// The provider's id of the response.
    pub id: Option<String>,
    /// Tokens and tier; its state says whether the figures are final.
    pub usage: Usage,
    /// The provider said in the body that it failed.
    pub error: Option<&'static str>,
    /// The response is logically over, whatever its framing still owes.
    pub over: bool,
    /// The usage of what was asked for earlier, which nobody could be told then.
    pub deferred: bool,
    /// What it told of the plan's limits.
    pub quota: Vec<Window>,
    /// A model was loaded or unloaded, and asked nothing.
    pub warm_up: bool,
    /// It was paid for beside the plan.
    pub beyond_plan: bool,
}

/// Follows the response of one exchange, one JSON unit (document, event, array element) at a time.
pub(crate) trait Reader: std::fmt::Debug + Send {
    /// `event` is the name of the server-sent event (maybe empty); `None`: a document or an element
    /// of a streamed array.
    fn unit(&mut self, event: Option<&str>, found: &Found);

    /// The model that was asked for, where its answers are read by it.
    fn asked(&mut self, _model: &str) {}

    /// When what follows was heard, where that is asked for.
    fn at(&mut self, _moment: Timestamp) {}

    /// A message that is no JSON.
    fn binary(&mut self, _message: &[u8]) {}

    /// The stream's `[DONE]`.
    fn done(&mut self) {}

    /// Nothing more will come; `whole`: nothing of what there was is missing.
    fn end(&mut self, _whole: bool) {}

    /// What is known by now.
    fn reading(&self) -> Reading;

    /// The surface, when the shape of the response told what the path did not.
    fn kind(&self) -> Option<Kind> {
        None
    }
}

/// A reader for `kind`; `None` for side calls, whose responses mean nothing to us.
pub(crate) fn reader(kind: Option<Kind>) -> Option<Box<dyn Reader>> {
    match kind? {
        Kind::Messages => Some(Box::<anthropic::Messages>::default()),
        Kind::Chat | Kind::Completions | Kind::Embeddings | Kind::Rerank | Kind::Moderation => {
            Some(Box::<openai_chat::Chat>::default())
        }
        Kind::GeminiBatch => Some(Box::<batch::Inline>::default()),
        Kind::Batch | Kind::BatchFile => Some(Box::<batch::Batch>::default()),
        Kind::Responses | Kind::Realtime | Kind::Audio | Kind::Decisions => {
            Some(Box::<openai_responses::Responses>::default())
        }
        Kind::Images => Some(Box::new(openai_responses::Responses::for_images())),
        Kind::Interactions => Some(Box::<interactions::Interactions>::default()),
        Kind::Ocr => Some(Box::new(Counted::of(What::Pages))),
        Kind::Speech => Some(Box::new(Counted::of(What::Characters))),
        Kind::Search => Some(Box::new(Counted::of(What::Searches))),
        Kind::Video => Some(Box::new(Counted::of(What::Video))),
        Kind::FineTuning => Some(Box::new(Counted::of(What::Training))),
        Kind::Cache => Some(Box::new(Counted::of(What::Cache))),
        Kind::Converse => Some(Box::<bedrock::Converse>::default()),
        Kind::Invoke => Some(Box::<bedrock::Invoke>::default()),
        Kind::Ollama => Some(Box::<ollama::Ollama>::default()),
        Kind::Gemini | Kind::CodeAssist => Some(Box::<gemini::Gemini>::default()),
        Kind::Live => Some(Box::new(gemini::Gemini::for_live())),
        Kind::GeminiEmbed | Kind::GeminiPredict | Kind::GeminiVideo => {
            Some(Box::new(gemini::Gemini::for_embeddings()))
        }
        Kind::Cohere => Some(Box::<cohere::Cohere>::default()),
        // Of a call that is not read the error is.
        Kind::Unknown | Kind::Grpc => Some(Box::<sniff::Sniff>::default()),
        Kind::Cursor => Some(Box::<cursor::Cursor>::default()),
        Kind::CountTokens
        | Kind::InputTokens
        | Kind::LiveSession
        | Kind::GeminiCountTokens
        | Kind::BedrockCountTokens => None,
        Kind::CodeAssistQuota => Some(Box::<Buckets>::default()),
    }
}

/// Code Assist's answer to "how much is left".
#[derive(Debug, Default)]
struct Buckets {
    left: Vec<Window>,
    now: Option<Timestamp>,
}

impl Reader for Buckets {
    fn at(&mut self, moment: Timestamp) {
        self.now = Some(moment);
    }

    fn unit(&mut self, _event: Option<&str>, found: &Found) {
        if let Some(buckets) = found.field(Field::Buckets) {
            self.left = quota::from_buckets(buckets, self.now);
        }
    }

    fn reading(&self) -> Reading {
        Reading { quota: self.left.clone(), ..Reading::default() }
    }
}

/// Every path that any reader wants: one list, so that the reader can be chosen by what is found.
macro_rules! wanted {
    ($($name:ident = $path:literal),+ $(,)?) => {
        #[derive(Clone, Copy)]
        pub(super) enum Field { $($name),+ }
        const RESPONSE_PATHS: &[&str] = &[$($path),+];
    };
}

wanted! {
    Type = "type",
    Id = "id",
    Model = "model",
    Usage = "usage",
    Error = "error",
    Code = "code",
    Object = "object",
    ServiceTier = "service_tier",
    Status = "status",
    MessageId = "message.id",
    MessageModel = "message.model",
    MessageUsage = "message.usage",
    DeltaStopReason = "delta.stop_reason",
    DeltaFinish = "delta.finish_reason",
    FinishReason = "finish_reason",
    StopReason = "stop_reason",
    ContentType = "content[].type",
    BlockType = "content_block.type",
    BlockTo = "content_block.to.model",
    DeltaUsage = "delta.usage",
    ChoiceFinish = "choices[].finish_reason",
    GroqUsage = "x_groq.usage",
    GroqId = "x_groq.id",
    GroqModels = "usage_breakdown.models",
    GroqStreamModels = "x_groq.usage_breakdown.models",
    GroqError = "x_groq.error",
    ChoiceUsage = "choices[].usage",
    ChoiceError = "choices[].error",
    MiniMaxStatus = "base_resp.status_code",
    Duration = "duration",
    OutputType = "output[].type",
    ActionType = "output[].action.type",
    OutputSvg = "output[].svg_usage",
    ToolType = "tools[].type",
    ToolModel = "tools[].model",
    ToolUsage = "tool_usage",
    SvgUsage = "svg_usage",
    CacheTtl = "prompt_cache_options.ttl",
    ItemType = "item.type",
    ItemActionType = "item.action.type",
    ItemSvg = "item.svg_usage",
    ExecutedType = "choices[].message.executed_tools[].type",
    ExecutedIndex = "choices[].message.executed_tools[].index",
    StreamExecutedType = "choices[].delta.executed_tools[].type",
    StreamExecutedIndex = "choices[].delta.executed_tools[].index",
    ResponseId = "response.id",
    ResponseModel = "response.model",
    ResponseUsage = "response.usage",
    ResponseTier = "response.service_tier",
    ResponseError = "response.error",
    ResponseStatus = "response.status",
    ResponseOutputType = "response.output[].type",
    ResponseActionType = "response.output[].action.type",
    ResponseOutputSvg = "response.output[].svg_usage",
    ResponseToolType = "response.tools[].type",
    ResponseToolModel = "response.tools[].model",
    ResponseToolUsage = "response.tool_usage",
    ResponseCacheTtl = "response.prompt_cache_options.ttl",
    ResponseBackground = "response.background",
    ResponseMeta = "response.meta",
    UsageMetadata = "usageMetadata",
    ModelVersion = "modelVersion",
    GeminiId = "responseId",
    Finish = "candidates[].finishReason",
    Blocked = "promptFeedback.blockReason",
    WrappedUsage = "response.usageMetadata",
    WrappedVersion = "response.modelVersion",
    WrappedId = "response.responseId",
    WrappedFinish = "response.candidates[].finishReason",
    WrappedBlocked = "response.promptFeedback.blockReason",
    TraceId = "traceId",
    RemainingCredits = "remainingCredits",
    ConsumedCredits = "consumedCredits",
    RequestId = "request_id",
    RateLimits = "rate_limits",
    PlanType = "plan_type",
    Credits = "credits",
    MeteredLimit = "metered_limit_name",
    LimitName = "limit_name",
    Buckets = "buckets",
    Background = "background",
    CopilotUsage = "copilot_usage",
    BedrockTier = "serviceTier",
    BedrockLatency = "performanceConfig.latency",
    InvocationMetrics = "amazon-bedrock-invocationMetrics",
    OllamaInput = "prompt_eval_count",
    OllamaOutput = "eval_count",
    OllamaDone = "done",
    OllamaDoneReason = "done_reason",
    InteractionUsage = "interaction.usage",
    InteractionId = "interaction.id",
    InteractionModel = "interaction.model",
    InteractionAgent = "interaction.agent",
    InteractionStatus = "interaction.status",
    InteractionTier = "interaction.service_tier",
    InteractionTierOfCloud = "interaction.serviceTier",
    Agent = "agent",
    Pages = "usage_info.pages_processed",
    AnnotatedPages = "usage_info.pages_processed_annotation",
    Characters = "extra_info.usage_characters",
    TaskCharacters = "usage_characters",
    BilledCharacters = "metadata.billableCharacterCount",
    ResultUrl = "results[].url",
    VideoSeconds = "seconds",
    VideoSize = "size",
    TrainedTokens = "trained_tokens",
    ResultUsage = "result.message.usage",
    ResultModel = "result.message.model",
    ResultStop = "result.message.stop_reason",
    ResultContent = "result.message.content[].type",
    BodyUsage = "response.body.usage",
    BodyModel = "response.body.model",
    BodyOutputType = "response.body.output[].type",
    BodyActionType = "response.body.output[].action.type",
    BodyOutputSvg = "response.body.output[].svg_usage",
    BodyToolType = "response.body.tools[].type",
    BodyToolModel = "response.body.tools[].model",
    BodyToolUsage = "response.body.tool_usage",
    BodyCacheTtl = "response.body.prompt_cache_options.ttl",
    Searches = "candidates[].groundingMetadata.webSearchQueries",
    // One of a place's fields: what is told of it is long.
    Maps = "candidates[].groundingMetadata.groundingChunks[].maps.placeId",
    WrappedSearches = "response.candidates[].groundingMetadata.webSearchQueries",
    Meta = "meta",
    TurnComplete = "serverContent.turnComplete",
    InlineModel = "metadata.model",
    InlineUsage = "metadata.output.inlinedResponses.inlinedResponses[].response.usageMetadata",
    DoneUsage = "response.inlinedResponses.inlinedResponses[].response.usageMetadata",
    InlineCount = "metadata.output.inlinedResponses.inlinedResponses[].response.tokenCount",
    DoneCount = "response.inlinedResponses.inlinedResponses[].response.tokenCount",
    InlineEmbedded = "metadata.output.inlinedEmbedContentResponses.inlinedResponses[].response.tokenCount",
    DoneEmbedded = "response.inlinedEmbedContentResponses.inlinedResponses[].response.tokenCount",
    PredictionTokens = "predictions[].embeddings.statistics.token_count",
    PredictionTokenCount = "predictions[].embeddings.statistics.tokenCount",
    LiveSearches = "serverContent.groundingMetadata.webSearchQueries",
}

pub(crate) fn response_paths() -> Arc<Paths> {
    static PATHS: LazyLock<Arc<Paths>> = LazyLock::new(|| Paths::new(RESPONSE_PATHS));
    Arc::clone(&PATHS)
}

impl Found {
    fn field(&self, field: Field) -> Option<&serde_json::Value> {
        self.last(field as usize)
    }

    fn text(&self, field: Field) -> Option<&str> {
        self.field(field)?.as_str().filter(|text| !text.is_empty())
    }
}

/// Overwrites `slot` when there is something to say.
fn keep<T: ToOwned + ?Sized>(slot: &mut Option<T::Owned>, value: Option<&T>) {
    if let Some(value) = value {
        *slot = Some(value.to_owned());
    }
}

/// The state of figures that are there or not, and final or not.
fn state(known: bool, last_word: bool) -> UsageState {
    match (known, last_word) {
        (false, _) => UsageState::Absent,
        (true, false) => UsageState::Partial,
        (true, true) => UsageState::Reported,
    }
}
