//! What requests are, by host, method and path.

use super::*;

#[test]
fn requests_are_what_their_paths_say() {
    for (host, method, path, kind, billable) in [
        ("api.anthropic.com", "POST", "/v1/messages", Some(Kind::Messages), true),
        ("api.anthropic.com", "POST", "/v1/messages/count_tokens", Some(Kind::CountTokens), false),
        ("api.anthropic.com", "POST", "/v1/messages/batches", None, false),
        ("api.anthropic.com", "GET", "/v1/models", None, false),
        ("api.anthropic.com", "POST", "/api/event_logging/v2/batch", None, false),
        ("api.openai.com", "POST", "/v1/chat/completions", Some(Kind::Chat), true),
        ("api.openai.com", "GET", "/v1/chat/completions", None, false),
        ("api.openai.com", "POST", "/v1/completions", Some(Kind::Completions), true),
        ("api.openai.com", "POST", "/v1/responses", Some(Kind::Responses), true),
        ("api.openai.com", "GET", "/v1/responses/resp_1/input_items", None, false),
        ("api.openai.com", "POST", "/v1/responses/input_tokens", Some(Kind::InputTokens), false),
        ("api.openai.com", "POST", "/v1/responses/resp_1/cancel", None, false),
        ("api.openai.com", "POST", "/v1/threads/t/messages", None, false),
        ("api.openai.com", "POST", "/v1/embeddings", Some(Kind::Embeddings), true),
        ("chatgpt.com", "POST", "/backend-api/codex/responses", Some(Kind::Responses), true),
        ("chatgpt.com", "GET", "/backend-api/codex/models", None, false),
        ("API.Groq.com.", "POST", "/openai/v1/chat/completions", Some(Kind::Chat), true),
        ("api.deepseek.com", "POST", "/anthropic/v1/messages", Some(Kind::Messages), true),
        ("api.cohere.com", "POST", "/v2/chat", Some(Kind::Cohere), true),
        (
            "cloudcode-pa.googleapis.com",
            "POST",
            "/v1internal:streamGenerateContent",
            Some(Kind::CodeAssist),
            true,
        ),
        ("cloudcode-pa.googleapis.com", "POST", "/v1internal:loadCodeAssist", None, false),
        ("llm.corp.example", "POST", "/proxy/v1/chat/completions", Some(Kind::Chat), true),
        ("llm.corp.example", "POST", "/ask", Some(Kind::Unknown), false),
        ("llm.corp.example", "GET", "/ask", None, false),
        ("ollama.com", "POST", "/api/chat", Some(Kind::Ollama), true),
        ("llm.corp.example", "POST", "/api/chat", Some(Kind::Unknown), false),
        ("api.githubcopilot.com", "POST", "/chat/completions", Some(Kind::Chat), true),
        ("api.githubcopilot.com", "POST", "/responses", Some(Kind::Responses), true),
        ("api.githubcopilot.com", "POST", "/v1/messages", Some(Kind::Messages), true),
        ("api.githubcopilot.com", "POST", "/mcp/readonly", None, false),
        (
            "copilot-proxy.githubusercontent.com",
            "POST",
            "/v1/engines/copilot-codex/completions",
            Some(Kind::Completions),
            true,
        ),
        ("api.mistral.ai", "POST", "/v1/ocr", Some(Kind::Ocr), true),
        ("api.mistral.ai", "POST", "/v1/conversations", Some(Kind::Chat), true),
        ("api.mistral.ai", "POST", "/v1/conversations/conv_1", Some(Kind::Chat), true),
        ("api.mistral.ai", "POST", "/v1/conversations/conv_1/restart", Some(Kind::Chat), true),
        ("api.mistral.ai", "GET", "/v1/conversations/conv_1", None, false),
        ("api.openai.com", "POST", "/v1/conversations", None, false),
        ("api.mistral.ai", "POST", "/v1/fim/completions", Some(Kind::Completions), true),
        (
            "generativelanguage.googleapis.com",
            "POST",
            "/v1beta/interactions",
            Some(Kind::Interactions),
            true,
        ),
        ("agent.api5.cursor.sh", "POST", "/agent.v1.AgentService/RunSSE", Some(Kind::Cursor), true),
        ("", "", "", None, false),
    ] {
        let route = route(host, false, method, path, false);
        assert_eq!((route.kind, route.billable), (kind, billable), "{method} {host}{path}");
    }
}

#[test]
fn calls_over_grpc_are_told_by_their_method() {
    let service = "/google.ai.generativelanguage.v1beta.GenerativeService";
    for (method, path, kind, billable, reread, stream) in [
        ("POST", format!("{service}/StreamGenerateContent"), Some(Kind::Gemini), true, false, true),
        (
            "POST",
            format!("{service}/CountTokens"),
            Some(Kind::GeminiCountTokens),
            false,
            false,
            false,
        ),
        ("POST", format!("{service}/GenerateAnswer"), Some(Kind::Grpc), true, false, false),
        ("POST", grpc::FETCHES.to_owned(), Some(Kind::Chat), false, true, false),
    ] {
        // Whoever passes it on.
        for host in ["generativelanguage.googleapis.com", "llm.corp.example"] {
            let found = route(host, false, method, &path, false);
            assert_eq!((found.kind, found.billable), (kind, billable), "{path}");
            assert_eq!((found.reread, found.stream), (reread, Some(stream)), "{path}");
        }
    }
    let other = route("api.x.ai", false, "GET", "/xai_api.Chat/GetCompletion", false);
    assert_eq!((other.kind, other.billable), (None, false));
}

#[test]
fn models_of_ones_own() {
    for (path, kind) in [
        ("/api/chat", Kind::Ollama),
        ("/api/generate", Kind::Ollama),
        ("/api/embed", Kind::Ollama),
        ("/v1/chat/completions", Kind::Chat),
        ("/v1/messages", Kind::Messages),
        ("/completion", Kind::Unknown),
    ] {
        let route = route("gpu-box", true, "POST", path, false);
        assert_eq!((route.kind, &*route.provider), (Some(kind), LOCAL), "{path}");
        assert_eq!(route.billable, kind != Kind::Unknown);
    }
    assert_eq!(route("gpu-box", true, "GET", "/api/tags", false).kind, None);
}

#[test]
fn clouds_name_the_model_in_the_path() {
    let vertex = "/v1/projects/p/locations/us-east5/publishers";
    for (host, path, kind, model, stream) in [
        (
            "bedrock-runtime.us-east-1.amazonaws.com",
            "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke-with-response-stream"
                .to_owned(),
            Kind::Invoke,
            Some("us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
            Some(true),
        ),
        (
            "bedrock-runtime.us-east-1.amazonaws.com",
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Feu.amazon.nova-lite-v1%3A0/converse".to_owned(),
            Kind::Converse,
            Some("eu.amazon.nova-lite-v1:0"),
            Some(false),
        ),
        (
            "bedrock-runtime.us-east-1.amazonaws.com",
            "/model/arn:aws:bedrock:us-east-1:1:application-inference-profile/x/converse-stream".to_owned(),
            Kind::Converse,
            Some("application-inference-profile/x"),
            Some(true),
        ),
        (
            "us-east5-aiplatform.googleapis.com",
            format!("{vertex}/anthropic/models/claude-sonnet-4-5@20250929:streamRawPredict"),
            Kind::Messages,
            Some("claude-sonnet-4-5@20250929"),
            Some(true),
        ),
        (
            "us-east5-aiplatform.googleapis.com",
            format!("{vertex}/anthropic/models/count-tokens:rawPredict"),
            Kind::CountTokens,
            None,
            Some(false),
        ),
        (
            "aiplatform.googleapis.com",
            format!("{vertex}/mistralai/models/mistral-medium-3:rawPredict"),
            Kind::Chat,
            Some("mistral-medium-3"),
            Some(false),
        ),
        (
            "aiplatform.googleapis.com",
            format!("{vertex}/google/models/gemini-2.5-pro:streamGenerateContent"),
            Kind::Gemini,
            Some("gemini-2.5-pro"),
            Some(true),
        ),
        (
            "corp.openai.azure.com",
            "/openai/deployments/my-gpt/chat/completions".to_owned(),
            Kind::Chat,
            Some("my-gpt"),
            None,
        ),
    ] {
        let route = route(host, false, "POST", &path, false);
        assert_eq!(route.kind, Some(kind), "{path}");
        assert_eq!((route.model.as_deref(), route.stream), (model, stream), "{path}");
    }
}

#[test]
fn what_is_read_back_is_not_asked_again() {
    for (path, kind, subject) in [
        ("/v1/responses/resp_1", Kind::Responses, None),
        ("/v1/messages/batches/msgbatch_1/results", Kind::Batch, Some("msgbatch_1")),
        ("/v1/files/file-1/content", Kind::BatchFile, Some("file-1")),
    ] {
        let route = route("api.openai.com", false, "GET", path, false);
        assert_eq!((route.kind, route.subject.as_deref()), (Some(kind), subject), "{path}");
        assert_eq!((route.billable, route.reread), (false, true), "{path}");
    }
}

#[test]
fn interactions_are_read_back_where_they_are_known() {
    let read = |host, path| route(host, false, "GET", path, false);
    let google = "generativelanguage.googleapis.com";
    let known = read(google, "/v1beta/interactions/v1_a");
    assert_eq!((known.kind, known.reread), (Some(Kind::Interactions), true));
    for (host, path) in
        [(google, "/v1beta/interactions"), ("api.openai.com", "/v1/interactions/v1_a")]
    {
        assert_eq!(read(host, path).kind, None, "{host}{path}");
    }
}

#[test]
fn a_host_with_more_than_models_counts_the_models_only() {
    let host = "corp.cognitiveservices.azure.com";
    let chat = "/openai/deployments/gpt/chat/completions";
    assert!(route(host, false, "POST", chat, false).billable);
    for path in [
        "/speechtotext/transcriptions:transcribe",
        "/language/:analyze-text",
        "/documentintelligence/documentModels/prebuilt-layout:analyze",
        "/contentsafety/text:analyze",
        "/vision/v3.2/analyze",
        "/translator/text/v3.0/translate",
        "/stt/speech/universal/v2",
        "/tts/cognitiveservices/v1",
    ] {
        for (method, upgrade) in [("POST", false), ("GET", false), ("GET", true)] {
            let other = route(host, false, method, path, upgrade);
            assert_eq!((other.kind, other.billable), (None, false), "{method} {path}");
        }
    }
}

#[test]
fn a_websocket_is_opened_with_get() {
    let socket = route("api.openai.com", false, "GET", "/v1/responses", true);
    assert_eq!((socket.kind, socket.billable), (Some(Kind::Responses), true));
}

#[test]
fn gemini_names_the_model_in_the_path() {
    let path = "/v1beta/models/gemini-2.5-pro:streamGenerateContent";
    let gemini = route("generativelanguage.googleapis.com", false, "POST", path, false);
    assert_eq!(gemini.model.as_deref(), Some("gemini-2.5-pro"));
    assert_eq!((gemini.kind, gemini.stream), (Some(Kind::Gemini), Some(true)));
    let count = route("x", false, "POST", "/v1/models/gemini-2.5-pro:countTokens", false);
    assert_eq!((count.kind, count.billable), (Some(Kind::GeminiCountTokens), false));
}

#[test]
fn hosts_say_who_and_on_what_terms() {
    assert!(route("chatgpt.com", false, "POST", "/", false).subscription);
    assert!(!route("api.openai.com", false, "POST", "/", false).subscription);
    let zai = |path| route("api.z.ai", false, "POST", path, false);
    let plan = zai("/api/coding/paas/v4/chat/completions");
    assert_eq!((plan.kind, plan.subscription), (Some(Kind::Chat), true));
    assert!(!zai("/api/paas/v4/chat/completions").subscription);
    for (host, path, plan) in [
        ("api.z.ai", "/api/anthropic/v1/messages", true),
        ("open.bigmodel.cn", "/api/anthropic/v1/messages", true),
        ("open.bigmodel.cn", "/api/coding/paas/v4/chat/completions", true),
        ("open.bigmodel.cn", "/api/paas/v4/chat/completions", false),
        ("api.kimi.com", "/coding/v1/chat/completions", true),
        ("api.moonshot.ai", "/anthropic/v1/messages", false),
        ("ark.cn-beijing.volces.com", "/api/coding/v3/chat/completions", true),
        ("ark.cn-beijing.volces.com", "/api/v3/chat/completions", false),
        ("coding-intl.dashscope.aliyuncs.com", "/v1/chat/completions", true),
        ("dashscope-intl.aliyuncs.com", "/compatible-mode/v1/chat/completions", false),
    ] {
        let route = route(host, false, "POST", path, false);
        assert_eq!((route.billable, route.subscription), (true, plan), "{host}{path}");
    }
    assert_eq!(route("eu.api.openai.com", false, "POST", "/", false).geo, Some("eu"));
    let claude = "/v1/projects/p/locations/l/publishers/anthropic/models/m:rawPredict";
    for (host, geo) in [
        ("aiplatform.googleapis.com", None),
        ("us-east5-aiplatform.googleapis.com", Some("regional")),
        ("aiplatform.eu.rep.googleapis.com", Some("regional")),
    ] {
        assert_eq!(route(host, false, "POST", claude, false).geo, geo, "{host}");
        let gemini = claude.replace("anthropic", "google");
        assert_eq!(route(host, false, "POST", &gemini, false).geo, geo, "{host}");
    }
    let unknown = route("Llm.Corp.example", false, "POST", "/", false);
    assert_eq!(unknown.provider, "llm.corp.example");
}

#[test]
fn interactions_are_known_at_both_of_googles_apis() {
    let gemini = "generativelanguage.googleapis.com";
    let vertex = "us-central1-aiplatform.googleapis.com";
    let of_project = "/v1beta1/projects/p/locations/us-central1";
    for (host, method, path, kind, billable) in [
        (gemini, "POST", "/v1beta/decisions".to_owned(), Some(Kind::Interactions), true),
        (vertex, "POST", format!("{of_project}/interactions"), Some(Kind::Interactions), true),
        (vertex, "POST", format!("{of_project}/decisions"), Some(Kind::Interactions), true),
        (vertex, "GET", format!("{of_project}/interactions/i"), Some(Kind::Interactions), false),
        (vertex, "POST", format!("{of_project}/interactions/i/cancel"), None, false),
        (gemini, "GET", "/v1beta/decisions".to_owned(), None, false),
        ("api.openai.com", "POST", "/v1/interactions".to_owned(), None, false),
        ("api.openai.com", "POST", "/v1/decisions".to_owned(), Some(Kind::Decisions), true),
    ] {
        let route = route(host, false, method, &path, false);
        assert_eq!((route.kind, route.billable), (kind, billable), "{method} {host}{path}");
    }
}

#[test]
fn cohere_classifies_for_money() {
    let route = |host| route(host, false, "POST", "/v1/classify", false);
    let cohere = route("api.cohere.com");
    assert_eq!((cohere.kind, cohere.billable), (Some(Kind::Cohere), true));
    assert_eq!(route("api.openai.com").kind, None);
}

#[test]
fn what_hosts_have_beside_the_common_paths_is_known_too() {
    let vertex = "us-east5-aiplatform.googleapis.com";
    let mistral = "/v1/projects/p/locations/l/publishers/mistralai/models";
    let (ocr, chat) = ("mistral-ocr-2505:rawPredict", "mistral-medium-3:rawPredict");
    for (host, path, kind) in [
        ("openrouter.ai", "/api/v1/rerank".to_owned(), Kind::Rerank),
        ("api.together.ai", "/v1/rerank".to_owned(), Kind::Rerank),
        ("api.fireworks.ai", "/inference/v1/rerank".to_owned(), Kind::Rerank),
        ("api.perplexity.ai", "/v1/contextualizedembeddings".to_owned(), Kind::Embeddings),
        ("api.minimax.io", "/v1/text/chatcompletion_v2".to_owned(), Kind::Chat),
        ("api.cohere.com", "/v1/generate".to_owned(), Kind::Cohere),
        ("api.cohere.com", "/v1/summarize".to_owned(), Kind::Cohere),
        ("corp.services.ai.azure.com", "/providers/cohere/v2/rerank".to_owned(), Kind::Cohere),
        ("corp.services.ai.azure.com", "/providers/mistral/azure/ocr".to_owned(), Kind::Ocr),
        (vertex, format!("{mistral}/{ocr}"), Kind::Ocr),
        (vertex, format!("{mistral}/{chat}"), Kind::Chat),
    ] {
        let known = route(host, false, "POST", &path, false);
        assert_eq!((known.kind, known.billable), (Some(kind), true), "{host}{path}");
        let elsewhere = route("api.openai.com", false, "POST", &path, false);
        assert!(!elsewhere.billable || host == vertex, "{path}");
    }
}

#[test]
fn an_arn_in_the_body_is_the_model_that_it_names() {
    let path = "/anthropic/v1/messages";
    let asked = |host, named| route(host, false, "POST", path, false).asked(named);
    let arn = "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-opus-4-7";
    let bedrock = "bedrock-runtime.us-east-1.amazonaws.com";
    assert_eq!(asked(bedrock, Some(arn)).as_deref(), Some("us.anthropic.claude-opus-4-7"));
    assert_eq!(asked("gateway.example", Some(arn)).as_deref(), Some(arn));
    assert_eq!(asked(bedrock, None), None);
}

#[test]
fn a_colon_that_is_encoded_is_one() {
    let google = |path: &str| {
        let found = route("generativelanguage.googleapis.com", false, "POST", path, false);
        (found.kind, found.billable, found.model)
    };
    for colon in ["%3A", "%3a", ":"] {
        let path = format!("/v1beta/models/gemini-2.5-flash{colon}generateContent");
        assert_eq!(google(&path), (Some(Kind::Gemini), true, Some("gemini-2.5-flash".to_owned())));
    }
    let claude =
        "/v1/projects/p/locations/l/publishers/anthropic/models/claude-x%4020250929:rawPredict";
    assert_eq!(google(claude).2.as_deref(), Some("claude-x@20250929"));
    assert_eq!(google("/v1beta/files/a%3Ab"), (None, false, None));
}

#[test]
fn a_video_is_asked_for_once() {
    let model = "/v1/projects/p/locations/l/publishers/google/models/veo-3.1-generate-001";
    let asked = |action: &str| {
        let path = format!("{model}:{action}");
        let found = route("us-central1-aiplatform.googleapis.com", false, "POST", &path, false);
        (found.kind, found.billable)
    };
    assert_eq!(asked("predictLongRunning"), (Some(Kind::GeminiVideo), true));
    // Whether it is made yet.
    assert_eq!(asked("fetchPredictOperation"), (None, false));
}
