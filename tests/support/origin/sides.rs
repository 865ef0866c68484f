//! What the clients ask for besides the model: accounts, lists of models, settings.

use serde_json::{Value, json};

/// `None`: no such thing here (404), which every client takes.
pub fn answer(host: &str, method: &str, path: &str) -> Option<Value> {
    match (method, path) {
        ("POST", "/v1/messages/count_tokens") => Some(json!({ "input_tokens": 42 })),
        ("POST", p) if p.ends_with(":countTokens") => Some(json!({ "totalTokens": 42 })),
        ("GET", "/v1/models") => Some(json!({
            "object": "list", "has_more": false, "first_id": null, "last_id": null,
            "data": [{ "id": "test-model", "type": "model", "object": "model",
                       "display_name": "Test", "created_at": "2026-01-01T00:00:00Z" }],
        })),
        _ if path.starts_with("/api/") => Some(json!({})),
        _ => match host {
            "chatgpt.com" => chatgpt(path),
            "cloudcode-pa.googleapis.com" => code_assist(path),
            "www.googleapis.com" => google_account(path),
            "api.github.com" => github(path),
            _ if host.ends_with(".githubcopilot.com") => copilot(path),
            _ => None,
        },
    }
}

/// The account that the made-up log-in of Codex names.
fn chatgpt(path: &str) -> Option<Value> {
    (path == "/backend-api/wham/accounts/check").then(|| {
        json!({ "accounts": [{ "id": ACCOUNT, "name": null, "profile_picture_url": null,
                "structure": "personal", "plan_type": "plus", "workspace_backend_origin": "https://chatgpt.com",
                "account_routing_override": "NO_CONSTRAINT" }],
                "account_ordering": [ACCOUNT], "default_account_id": ACCOUNT })
    })
}

pub const ACCOUNT: &str = "00000000-0000-4000-8000-000000000001";

/// Someone who has been set up already.
fn code_assist(path: &str) -> Option<Value> {
    match path {
        "/v1internal:loadCodeAssist" => Some(json!({
            "currentTier": { "id": "standard-tier", "name": "Gemini Code Assist",
                             "userDefinedCloudaicompanionProject": true },
            "cloudaicompanionProject": "test-project", "gcpManaged": false })),
        "/v1internal:retrieveUserQuota" => Some(json!({ "buckets": [
            { "modelId": "gemini-2.5-flash", "tokenType": "REQUESTS", "remainingFraction": 0.75,
              "resetTime": "2030-01-01T00:00:00Z" }] })),
        _ if path.starts_with("/v1internal:") => Some(json!({})),
        _ => None,
    }
}

fn google_account(path: &str) -> Option<Value> {
    (path == "/oauth2/v2/userinfo")
        .then(|| json!({ "id": "1", "email": "someone@example.com", "verified_email": true }))
}

fn github(path: &str) -> Option<Value> {
    match path {
        "/copilot_internal/user" => Some(json!({
            "login": "someone", "access_type_sku": "monthly_subscriber_quota",
            "copilot_plan": "individual", "chat_enabled": true, "assigned_date": null,
            "analytics_tracking_id": "a", "organization_list": [],
            "endpoints": { "api": "https://api.individual.githubcopilot.com",
                           "proxy": "https://proxy.individual.githubcopilot.com",
                           "telemetry": "https://telemetry.individual.githubcopilot.com" } })),
        "/user" => Some(json!({ "login": "someone", "id": 1 })),
        _ => None,
    }
}

fn copilot(path: &str) -> Option<Value> {
    let model = |id: &str, endpoint: &str| {
        json!({ "id": id, "name": id, "object": "model", "vendor": "test", "version": id,
            "model_picker_enabled": true, "preview": false,
            "supported_endpoints": [endpoint],
            "policy": { "state": "enabled", "terms": "" },
            "billing": { "is_premium": true, "multiplier": 1 },
            "capabilities": { "family": id, "object": "model_capabilities", "type": "chat",
                "tokenizer": "o200k_base",
                "limits": { "max_context_window_tokens": 200_000, "max_output_tokens": 64_000,
                            "max_prompt_tokens": 128_000 },
                "supports": { "streaming": true, "tool_calls": true, "parallel_tool_calls": true } } })
    };
    (path == "/models").then(|| {
        json!({ "object": "list", "data": [model("gpt-4o", "/chat/completions"),
            model("gpt-5", "/responses"), model("claude-sonnet-4.6", "/v1/messages")] })
    })
}
