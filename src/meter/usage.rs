//! Token classes and what a provider said of them. Classes are disjoint unless noted; absent is
//! `None`, never 0.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Tokens of one request by the classes that have prices of their own.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct Tokens {
    /// Input that was neither read from nor written to a cache.
    pub input: Option<u64>,
    pub cache_read: Option<u64>,
    pub cache_write_5m: Option<u64>,
    pub cache_write_1h: Option<u64>,
    /// Cache writes whose lifetime the provider did not say.
    pub cache_write_other: Option<u64>,
    /// Output, reasoning included.
    pub output: Option<u64>,
    /// The part of `output` that was reasoning.
    pub reasoning: Option<u64>,
    /// The parts of `input` / `output` that were audio or image tokens.
    pub audio_input: Option<u64>,
    pub audio_output: Option<u64>,
    pub image_input: Option<u64>,
    pub image_output: Option<u64>,
}

impl Tokens {
    /// All input of the request, cached or not: what long-context price steps look at.
    #[must_use]
    pub fn total_input(&self) -> u64 {
        [
            self.input,
            self.cache_read,
            self.cache_write_5m,
            self.cache_write_1h,
            self.cache_write_other,
        ]
        .into_iter()
        .flatten()
        .fold(0, u64::saturating_add)
    }

    /// The parts inside of what they are parts of. Of input some tell what kinds all of it was, and not
    /// which of them came out of the cache: no more of it is fresh than there is, the rest was cached.
    #[must_use]
    fn within(&self, cached: &mut Cached) -> Self {
        let sum = |parts: [Option<u64>; 2]| parts.into_iter().flatten().reduce(u64::saturating_add);
        let (mut input, mut cache_read) = (self.input, self.cache_read);
        if cache_read.is_none() {
            cache_read = sum([cached.audio, cached.image]).map(|n| n.min(input.unwrap_or(n)));
            input = input.map(|all| all.saturating_sub(cache_read.unwrap_or(0)));
        }
        let inside = |whole: Option<u64>, audio: Option<u64>, image: Option<u64>| {
            let whole = whole.or(sum([audio, image]));
            let audio = audio.map(|n| n.min(whole.unwrap_or(n)));
            let left = whole.map(|whole| whole.saturating_sub(audio.unwrap_or(0)));
            (whole, audio, image.map(|n| n.min(left.unwrap_or(n))))
        };
        let (input, audio_input, image_input) = inside(input, self.audio_input, self.image_input);
        if cache_read.is_some() && cached.is_empty() {
            // What is neither fresh nor written came out of the cache.
            let writes = [self.cache_write_5m, self.cache_write_1h, self.cache_write_other];
            let mut written = writes.into_iter().flatten().fold(0, u64::saturating_add);
            let mut read = |told: Option<u64>, fresh: Option<u64>| {
                let more = told?.saturating_sub(fresh.unwrap_or(0));
                let read = more.saturating_sub(written);
                written = written.saturating_sub(more);
                Some(read).filter(|read| *read > 0)
            };
            cached.audio = read(self.audio_input, audio_input);
            cached.image = read(self.image_input, image_input);
        }
        (cache_read, cached.audio, cached.image) = inside(cache_read, cached.audio, cached.image);
        let (output, audio_output, image_output) =
            inside(self.output, self.audio_output, self.image_output);
        Self {
            input,
            cache_read,
            output,
            audio_input,
            audio_output,
            image_input,
            image_output,
            ..*self
        }
    }

    /// With what another account of the same tokens tells of the caches, if both count these beside
    /// the input.
    #[must_use]
    pub fn with_caches(&self, told: &Self) -> Self {
        let written = self.cache_write_5m.or(self.cache_write_1h).or(self.cache_write_other);
        let fits = self.input.is_some() && self.input == told.input;
        let more = if fits { *told } else { Self::default() };
        Self {
            cache_read: self.cache_read.or(more.cache_read),
            cache_write_other: written.map_or(more.cache_write_other, |_| self.cache_write_other),
            ..*self
        }
    }

    /// Each token once, by what is priced alike: what is audio or an image is not text too.
    #[must_use]
    pub fn by_kind(&self) -> [(&'static str, Option<u64>); 10] {
        let less = |whole: Option<u64>, parts: [Option<u64>; 2]| {
            let parts = parts.into_iter().flatten().fold(0, u64::saturating_add);
            whole.map(|whole| whole.saturating_sub(parts))
        };
        [
            ("input", less(self.input, [self.audio_input, self.image_input])),
            ("audio_input", self.audio_input),
            ("image_input", self.image_input),
            ("cache_read", self.cache_read),
            ("cache_write_5m", self.cache_write_5m),
            ("cache_write_1h", self.cache_write_1h),
            ("cache_write_other", self.cache_write_other),
            ("output", less(self.output, [self.audio_output, self.image_output])),
            ("audio_output", self.audio_output),
            ("image_output", self.image_output),
        ]
    }

    /// Both together, by class; what is absent in both stays absent.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            input: add(self.input, other.input),
            cache_read: add(self.cache_read, other.cache_read),
            cache_write_5m: add(self.cache_write_5m, other.cache_write_5m),
            cache_write_1h: add(self.cache_write_1h, other.cache_write_1h),
            cache_write_other: add(self.cache_write_other, other.cache_write_other),
            output: add(self.output, other.output),
            reasoning: add(self.reasoning, other.reasoning),
            audio_input: add(self.audio_input, other.audio_input),
            audio_output: add(self.audio_output, other.audio_output),
            image_input: add(self.image_input, other.image_input),
            image_output: add(self.image_output, other.image_output),
        }
    }
}

/// Both together; what is absent in both stays absent.
fn add(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (None, None) => None,
        (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
    }
}

/// Whether this word for a tier, a speed or a latency means that nothing else was asked for.
#[must_use]
pub fn is_plain(word: &str) -> bool {
    ["", "default", "standard", "auto", "on_demand", "unspecified"]
        .iter()
        .any(|p| word.eq_ignore_ascii_case(p))
}

/// Bedrock's latency is a tier of its own, unless another is told: it has a price of its own.
#[must_use]
pub fn or_optimized(tier: Option<String>, latency: Option<&str>) -> Option<String> {
    let plain = tier.as_deref().is_none_or(is_plain);
    latency.filter(|word| plain && !is_plain(word)).map(str::to_owned).or(tier)
}

/// How much of the usage is known.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum UsageState {
    /// The provider's final figures.
    Reported,
    /// Some figures came before the exchange was cut (e.g. input, but not output).
    Partial,
    /// The provider said nothing.
    #[default]
    Absent,
}

impl UsageState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Partial => "partial",
            Self::Absent => "absent",
        }
    }
}

/// Why the figures are not simply the provider's word.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Caveat {
    /// Read out of a format that nobody has published.
    Unverified,
    /// The provider told nothing: made from what the request asked for.
    FromRequest,
}

impl Caveat {
    /// As a reason why a cost is an estimate.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Unverified => "unverified: the format is not published",
            Self::FromRequest => "counted by what the request asks for, not told by the provider",
        }
    }

    /// In a word.
    #[must_use]
    pub const fn note(self) -> &'static str {
        match self {
            Self::Unverified => "unverified",
            Self::FromRequest => "counted by the request",
        }
    }
}

/// What of the exchange has a price of its own: another model, outside the top-level totals
/// (Anthropic `iterations`: compaction, advisor, fallback), or lines of a batch that are priced alike.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct UsagePart {
    /// `None`: the model of the exchange.
    pub model: Option<String>,
    pub tokens: Tokens,
    /// All input of the longest of several requests that are added up here. `None`: it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest: Option<u64>,
    /// Where it ran. `None`: where the exchange did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geo: Option<String>,
    /// The parts of its cache reads that were audio or images.
    #[serde(default, skip_serializing_if = "Cached::is_empty")]
    pub cached: Cached,
    /// How many of its `cache_write_other` are kept for 12 hours, where the provider tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_12h: Option<u64>,
}

/// Total inputs above which some model of the price list costs more. Kept here, so that what is added
/// up needs no prices; a test says when the list has another one.
pub const STEPS: [u64; 6] = [100_000, 128_000, 199_999, 200_000, 272_000, 512_000];

impl UsagePart {
    /// All input of one request, the longest in it: what long-context price steps look at.
    #[must_use]
    pub fn total_input(&self) -> u64 {
        self.longest.unwrap_or_else(|| self.tokens.total_input())
    }

    /// How many of [`STEPS`] its requests are above.
    #[must_use]
    pub fn steps(&self) -> usize {
        STEPS.iter().filter(|step| self.total_input() > **step).count()
    }

    /// Adds it to the one that is priced alike, if there is one.
    pub fn add_to(self, parts: &mut Vec<Self>) {
        let alike = |known: &&mut Self| {
            known.model == self.model && known.geo == self.geo && known.steps() == self.steps()
        };
        match parts.iter_mut().find(alike) {
            Some(known) => {
                known.longest = Some(known.total_input().max(self.total_input()));
                known.tokens = known.tokens.plus(&self.tokens);
                known.cached = known.cached.plus(self.cached);
                known.written_12h = add(known.written_12h, self.written_12h);
            }
            None => parts.push(self),
        }
    }
}

/// The parts of `cache_read` that were no text, where the provider tells.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct Cached {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<u64>,
}

impl Cached {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn plus(self, other: Self) -> Self {
        Self { audio: add(self.audio, other.audio), image: add(self.image, other.image) }
    }
}

/// What is billed by count besides tokens and web searches, by name: `file_searches`, `code_runs`,
/// `images`, `audio_seconds` (of pieces of what is said `audio_milliseconds`), `search_units`,
/// `pages`, `annotated_pages`, `characters`, `searches`, `preview_searches` (by a tool that costs more than
/// `web_searches`), `video_seconds_SIZE`, `requests_low` (by how much was searched for it), `trained_tokens`,
/// `stored_tokens`.
pub type Counts = BTreeMap<String, u64>;

/// What a surface learned from one exchange.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    pub state: UsageState,
    /// Sum over everything that is billed.
    pub tokens: Tokens,
    /// Empty when all of it is one request to one model; else the parts that add up to `tokens`.
    pub parts: Vec<UsagePart>,
    /// Service tier as the *response* names it (`priority`, `flex`, `batch` …).
    pub tier: Option<String>,
    /// Anthropic `speed` (`fast`).
    pub speed: Option<String>,
    /// The lifetime that the response names, or that the request asked for (`12h`), for cache writes
    /// that the response does not split.
    pub cache_ttl: Option<String>,
    /// How many of `cache_write_other` are kept for 12 hours, where the response splits them.
    pub written_12h: Option<u64>,
    /// The parts of the cache reads that were audio or images.
    pub cached: Cached,
    /// Where inference ran, when it changes the price.
    pub geo: Option<String>,
    /// Server-side tool calls that are billed by count.
    pub web_searches: Option<u64>,
    /// Whatever else is billed by count.
    pub counts: Counts,
    /// The model declined before it said anything.
    pub refused: bool,
    pub caveat: Option<Caveat>,
    /// What the provider itself says it charged, in nano-dollars.
    pub provider_cost_nanousd: Option<i64>,
}

impl Usage {
    /// No token is in it twice, whatever the provider told.
    #[must_use]
    pub fn within(mut self) -> Self {
        self.tokens = self.tokens.within(&mut self.cached);
        for part in &mut self.parts {
            part.tokens = part.tokens.within(&mut part.cached);
        }
        self
    }
}
