//! What keys look like that have a form of their own: one table for names and for bodies.

/// A form of keys.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// What is written in a key's place says so.
    pub class: &'static str,
    /// For prose. What is in its last brackets is the key, if it has any. Lower bounds far below the real
    /// lengths: what was cut off is one too.
    pub pattern: &'static str,
    pub name: InName,
}

/// When a name holds such a key. A name that is taken for a key is lost, so this must not be a guess.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum InName {
    /// Where the pattern is found.
    Same,
    /// There, if there is a digit in it: words may begin so.
    WithDigit,
    /// Where this one is found.
    Stricter(&'static str),
    /// Where this one is found, if no person would make up what is there.
    Made(&'static str),
    /// Its form alone tells nothing.
    Never,
}

use InName::{Made, Never, Same, Stricter, WithDigit};

const fn form(class: &'static str, pattern: &'static str, name: InName) -> Form {
    Form { class, pattern, name }
}

/// All of them; of several that fit the first names it.
pub const FORMS: &[Form] = &[
    form("anthropic_key", r"sk-ant-[A-Za-z0-9_-]{6,}", Same),
    form("openai_key", r"sk-(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{8,}", WithDigit),
    form("openai_key", r"sess-[A-Za-z0-9]{20,}", Never),
    form("openrouter_key", r"sk-or-[A-Za-z0-9_-]{8,}", WithDigit),
    form(
        "api_key",
        r"(?:^|[^A-Za-z0-9])(sk-[A-Za-z0-9_-]{20,})|sk-[A-Za-z0-9]{8,}T3BlbkFJ[A-Za-z0-9]*",
        Made(GENERIC),
    ),
    form(
        "aws_access_key",
        r"(?:AKIA|ASIA|ABIA|ACCA|AROA|AIDA)[A-Z0-9]{8,}",
        Stricter(r"(?:^|[^A-Za-z0-9])(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}"),
    ),
    form("aws_bedrock_key", r"ABSK[A-Za-z0-9+/=]{20,}|bedrock-api-key-[A-Za-z0-9+/=_-]{8,}", Same),
    form("github_token", r"gh[pousr]_[A-Za-z0-9]{8,}|github_pat_[A-Za-z0-9_]{8,}", WithDigit),
    form(
        "gitlab_token",
        r"gl(?:pat|rt|dt|ft|soat|ptt|cbt|agent|imt|oas)-[A-Za-z0-9_.-]{8,}",
        Stricter(
            r"glpat-[A-Za-z0-9_.-]{8,}|gl(?:rt|dt|ft|soat|ptt|cbt|agent|imt|oas)-[A-Za-z0-9_.-]{20,}",
        ),
    ),
    form(
        "google_api_key",
        r"AIza[A-Za-z0-9_-]{8,}|GOCSPX-[A-Za-z0-9_-]{8,}|ya29\.[A-Za-z0-9_-]{8,}",
        Same,
    ),
    form(
        "google_api_key",
        r"(?:^|[^A-Za-z0-9])(AQ\.Ab[A-Za-z0-9_-]{16,})|1//0[A-Za-z0-9_-]{20,}",
        WithDigit,
    ),
    form("groq_key", r"gsk_[A-Za-z0-9]{12,}", Same),
    form("xai_key", r"xai-[A-Za-z0-9]{16,}", WithDigit),
    form("npm_token", r"npm_[A-Za-z0-9]{16,}", WithDigit),
    form("huggingface_token", r"hf_[A-Za-z0-9]{16,}|api_org_[A-Za-z0-9]{16,}", WithDigit),
    form(
        "provider_key",
        r"pplx-[A-Za-z0-9]{16,}|nvapi-[A-Za-z0-9_-]{16,}|csk-[A-Za-z0-9]{16,}|r8_[A-Za-z0-9]{16,}|fw_[A-Za-z0-9]{16,}|tgp_v1_[A-Za-z0-9_-]{16,}|psk-[A-Za-z0-9]{16,}|jina_[A-Za-z0-9_-]{24,}|esecret_[A-Za-z0-9]{16,}|vck_[A-Za-z0-9]{16,}|tvly-[A-Za-z0-9-]{16,}|lsv2_[a-z]{2}_[A-Za-z0-9_]{16,}|pcsk_[A-Za-z0-9_]{16,}|e2b_[a-f0-9]{16,}|flp_[A-Za-z0-9]{16,}|dapi[a-f0-9]{32}",
        WithDigit,
    ),
    // Voyage's, Z.ai's, and what several give out with nothing more than this before it.
    form("provider_key", r"(?:^|[^A-Za-z0-9])(pa-[A-Za-z0-9_-]{40,})", WithDigit),
    form(
        "provider_key",
        r"(?:^|[^A-Za-z0-9])([a-f0-9]{32}\.[A-Za-z0-9]{16})(?:[^A-Za-z0-9]|$)",
        Same,
    ),
    form(
        "slack_token",
        r"xox[abceoprs](?:\.xox[a-z])?-[A-Za-z0-9-]{6,}|xapp-[A-Za-z0-9-]{6,}|xwfp-[A-Za-z0-9-]{6,}",
        Stricter(
            r"xox[abceoprs](?:\.xox[a-z])?-[A-Za-z0-9-]{6,}|x(?:app|wfp)-[0-9]-[A-Za-z0-9-]{6,}",
        ),
    ),
    form(
        "slack_webhook",
        r"hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9_/-]{4,})",
        Same,
    ),
    form("discord_webhook", r"discord(?:app)?\.com/api/webhooks/([A-Za-z0-9_/-]{4,})", Same),
    form("telegram_token", r"\b[0-9]{8,10}:[A-Za-z0-9_-]{35}", Same),
    form(
        "service_token",
        r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{8,}|whsec_[A-Za-z0-9+/=]{8,}|SG\.[A-Za-z0-9_-]{10,}\.?[A-Za-z0-9_-]*|shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{16,}|do[opr]_v1_[a-f0-9]{16,}|dckr_(?:pat|oat)_[A-Za-z0-9_-]{8,}|pypi-[A-Za-z0-9_-]{16,}|ATATT[A-Za-z0-9_=-]{16,}|lin_(?:api|oauth)_[A-Za-z0-9]{16,}|ntn_[A-Za-z0-9]{16,}|AGE-SECRET-KEY-1[A-Z0-9]{8,}|hv[sbr]\.[A-Za-z0-9_-]{16,}|tskey-[A-Za-z0-9-]{8,}|figd_[A-Za-z0-9_-]{16,}|sntry[us]_[A-Za-z0-9_=+/-]{16,}|PMAK-[A-Za-z0-9-]{16,}|cio[A-Za-z0-9]{32}",
        Stricter(
            r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{8,}|whsec_[A-Za-z0-9+/=]{8,}|(?:^|[^A-Za-z0-9])SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{16,}|do[opr]_v1_[a-f0-9]{16,}|dckr_(?:pat|oat)_[A-Za-z0-9_-]{8,}|pypi-Ag[EN][A-Za-z0-9_-]{16,}|ATATT[A-Za-z0-9_=-]{16,}|lin_(?:api|oauth)_[A-Za-z0-9]{16,}|AGE-SECRET-KEY-1[A-Z0-9]{8,}|(?:^|[^A-Za-z0-9])hv[sbr]\.[A-Za-z0-9_-]{20,}|tskey-[a-z]+-[A-Za-z0-9-]{16,}|figd_[A-Za-z0-9_-]{16,}|sntry[us]_[A-Za-z0-9_=+/-]{16,}|PMAK-[A-Za-z0-9-]{16,}",
        ),
    ),
    form(
        "jwt",
        r"eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{2,}(?:\.[A-Za-z0-9_-]*)*",
        Stricter(r"eyJ[A-Za-z0-9_-]{6,}\.eyJ[A-Za-z0-9_-]{2,}"),
    ),
];

/// `sk-learn-experiments` is somebody's project.
const GENERIC: &str = r"(?:^|[^A-Za-z0-9])(?:sk-|sk_|key-)[A-Za-z0-9_-]{16,}";
