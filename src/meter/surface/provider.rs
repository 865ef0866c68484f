//! Whose host it is. A table: most providers differ in nothing but the name.

/// How a provider's requests are paid when the request itself does not say otherwise.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Terms {
    /// By use.
    Metered,
    /// By a plan: only subscribers use this host.
    Plan,
}

use Terms::{Metered, Plan};

/// Host (`*` stands for any text, once), provider, terms. The first match counts.
const HOSTS: &[(&str, &str, Terms)] = &[
    ("api.anthropic.com", "anthropic", Metered),
    (crate::config::SELFTEST_HOST, "anthropic", Metered),
    ("aws-external-anthropic.*.api.aws", "anthropic", Metered),
    ("claude.googleapis.com", "anthropic", Metered),
    ("api.openai.com", "openai", Metered),
    ("*.api.openai.com", "openai", Metered),
    ("chatgpt.com", "openai", Plan),
    ("*.chatgpt.com", "openai", Plan),
    ("generativelanguage.googleapis.com", "google", Metered),
    ("generativelanguage.mtls.googleapis.com", "google", Metered),
    ("cloudcode-pa.googleapis.com", "google", Plan),
    ("*-cloudcode-pa.googleapis.com", "google", Plan),
    ("*-cloudcode-pa.sandbox.googleapis.com", "google", Plan),
    ("cloudcode-pa.*.googleapis.com", "google", Plan),
    ("*aiplatform.googleapis.com", "vertex", Metered),
    ("aiplatform.*.rep.googleapis.com", "vertex", Metered),
    ("aiplatform.mtls.googleapis.com", "vertex", Metered),
    ("bedrock-runtime*.amazonaws.com", "bedrock", Metered),
    ("bedrock-runtime*.amazonaws.com.cn", "bedrock", Metered),
    ("bedrock-mantle.*.api.aws", "bedrock", Metered),
    ("*.openai.azure.com", "azure", Metered),
    ("*.services.ai.azure.com", "azure", Metered),
    ("*.cognitiveservices.azure.com", "azure", Metered),
    ("models.inference.ai.azure.com", "azure", Metered),
    ("*.githubcopilot.com", "copilot", Plan),
    ("copilot-proxy.githubusercontent.com", "copilot", Plan),
    ("api.x.ai", "xai", Metered),
    ("*.api.x.ai", "xai", Metered),
    ("api.groq.com", "groq", Metered),
    ("api.mistral.ai", "mistral", Metered),
    ("api.*.mistral.ai", "mistral", Metered),
    ("codestral.mistral.ai", "mistral", Metered),
    ("api.deepseek.com", "deepseek", Metered),
    ("openrouter.ai", "openrouter", Metered),
    ("eu.openrouter.ai", "openrouter", Metered),
    ("us.openrouter.ai", "openrouter", Metered),
    ("api.together.ai", "together", Metered),
    ("api.together.xyz", "together", Metered),
    ("api-inference.together.ai", "together", Metered),
    ("api.fireworks.ai", "fireworks", Metered),
    ("us.api.fireworks.ai", "fireworks", Metered),
    ("api.cohere.com", "cohere", Metered),
    ("api.cohere.ai", "cohere", Metered),
    ("api.perplexity.ai", "perplexity", Metered),
    ("api.cerebras.ai", "cerebras", Metered),
    ("api.moonshot.*", "moonshot", Metered),
    ("api.kimi.com", "moonshot", Plan),
    ("api.z.ai", "zai", Metered),
    // Z.ai's in China, whose prices are others.
    ("open.bigmodel.cn", "bigmodel", Metered),
    ("api.minimax.io", "minimax", Metered),
    ("api.sambanova.ai", "sambanova", Metered),
    ("api.deepinfra.com", "deepinfra", Metered),
    ("integrate.api.nvidia.com", "nvidia", Metered),
    ("coding.dashscope.aliyuncs.com", "alibaba", Plan),
    ("coding-intl.dashscope.aliyuncs.com", "alibaba", Plan),
    ("dashscope*.aliyuncs.com", "alibaba", Metered),
    ("ark.*.volces.com", "volcengine", Metered),
    ("api.studio.nebius.ai", "nebius", Metered),
    ("api.hyperbolic.xyz", "hyperbolic", Metered),
    ("api.novita.ai", "novita", Metered),
    ("inference.baseten.co", "baseten", Metered),
    ("ai-gateway.vercel.sh", "vercel", Metered),
    ("api.llama.com", "meta", Metered),
    ("api.meta.ai", "meta", Metered),
    ("router.huggingface.co", "huggingface", Metered),
    ("api.poe.com", "poe", Metered),
    ("ollama.com", "ollama", Metered),
    ("*.cursor.sh", "cursor", Plan),
];

/// The provider of models of the user's own.
pub const LOCAL: &str = "local";

/// Provider and terms of a host (lower case, no trailing dot); `None`: not one that we know.
pub(super) fn of_host(host: &str) -> Option<(&'static str, Terms)> {
    let found = HOSTS.iter().find(|(pattern, ..)| matches(pattern, host));
    found.map(|(_, provider, terms)| (*provider, *terms))
}

fn matches(pattern: &str, host: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == host };
    host.len() >= before.len() + after.len() && host.starts_with(before) && host.ends_with(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_every_kind() {
        for (host, provider) in [
            ("us-east5-aiplatform.googleapis.com", Some("vertex")),
            ("aiplatform.googleapis.com", Some("vertex")),
            ("aiplatform.eu.rep.googleapis.com", Some("vertex")),
            ("bedrock-runtime.eu-west-1.amazonaws.com", Some("bedrock")),
            ("bedrock-runtime-fips.us-east-1.amazonaws.com", Some("bedrock")),
            ("s3.eu-west-1.amazonaws.com", None),
            ("corp.openai.azure.com", Some("azure")),
            ("api.individual.githubcopilot.com", Some("copilot")),
            ("daily-cloudcode-pa.googleapis.com", Some("google")),
            ("daily-cloudcode-pa.sandbox.googleapis.com", Some("google")),
            ("daily-cloudcode-pa.sandbox.googleapis.com.evil.example", None),
            ("daily-cloudcode-pa.evil.googleapis.com", None),
            ("sandbox.googleapis.com", None),
            ("api.eu.mistral.ai", Some("mistral")),
            ("api.moonshot.cn", Some("moonshot")),
            ("us.api.fireworks.ai", Some("fireworks")),
            ("eu.openrouter.ai", Some("openrouter")),
            ("us.openrouter.ai", Some("openrouter")),
            ("status.openrouter.ai", None),
            ("agentn.us.api5.cursor.sh", Some("cursor")),
            ("openai.com", None),
            ("", None),
        ] {
            assert_eq!(of_host(host).map(|(name, _)| name), provider, "{host}");
        }
        assert!(!matches("a*a", "a"), "the two sides may not overlap");
    }
}
