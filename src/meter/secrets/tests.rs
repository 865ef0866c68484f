//! Keys of each form, made at random, are no names; and names that are in use are no keys.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::string::string_regex;
use proptest::test_runner::TestRunner;
use serde_json::Value;

use super::*;
use crate::meter::exchange::tests::Case;

/// Keys as their makers give them out.
const KEYS: &[&str] = &[
    "sk-ant-(api03|oat01|admin01)-[A-Za-z0-9_-]{86}AA",
    "sk-(proj|svcacct|admin)-[A-Za-z0-9_-]{40,140}",
    "sk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}",
    // DeepSeek, DashScope, Moonshot; LiteLLM.
    "sk-[a-f0-9]{30}[0-9]f",
    "sk-[A-Za-z0-9]{46}7x",
    "sk-kimi-[A-Za-z0-9]{30}4Z",
    "sk-lf-[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}",
    "sk_[a-f0-9]{46}1a",
    "sk-or-v1-[a-f0-9]{64}",
    "xai-[A-Za-z0-9]{78}5e",
    "gsk_[A-Za-z0-9]{52}",
    "AIza[A-Za-z0-9_-]{35}",
    r"AQ\.Ab8[A-Za-z0-9_-]{40}4",
    r"ya29\.[A-Za-z0-9_-]{60,120}",
    "pplx-[A-Za-z0-9]{46}3f",
    "nvapi-[A-Za-z0-9_-]{58}3f",
    "csk-[a-z0-9]{46}2b",
    "hf_[A-Za-z0-9]{32}6g",
    "r8_[A-Za-z0-9]{35}6g",
    "fw_[A-Za-z0-9]{22}6g",
    "tgp_v1_[A-Za-z0-9_-]{41}6g",
    "pa-[A-Za-z0-9_-]{41}6g",
    r"[a-f0-9]{32}\.[A-Za-z0-9]{16}",
    "jina_[a-f0-9]{32}[A-Za-z0-9]{26}6g",
    "vck_[A-Za-z0-9]{54}6g",
    "dapi[a-f0-9]{30}6a",
    "(AKIA|ASIA)[A-Z0-9]{16}",
    "ABSK[A-Za-z0-9+]{120}",
    "gh[pousr]_[A-Za-z0-9]{34}6g",
    "github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{57}6g",
    "glpat-[A-Za-z0-9_-]{20}",
    "npm_[A-Za-z0-9]{34}6g",
    "xox[abprs]-[0-9]{10,13}-[0-9]{10,13}-[A-Za-z0-9]{24}",
    r"eyJ[A-Za-z0-9_-]{20,60}\.eyJ[A-Za-z0-9_-]{20,100}\.[A-Za-z0-9_-]{20,40}",
    "(sk|rk)_live_[A-Za-z0-9]{24,99}",
    "(Bearer|bearer) [A-Za-z0-9._~+/-]{16,80}",
];

/// Names that are in use, or could be.
const NAMES: &[&str] = &[
    "ft:gpt-4o-2024-08-06:org:name:id",
    "ft:gpt-4.1-nano-2025-04-14:my-org:custom-suffix:BkX3yQ9a",
    "arn:aws:bedrock:us-east-1:123456789012:inference-profile/eu.amazon.nova-lite-v1:0",
    "arn:aws:bedrock:us-west-2:123456789012:application-inference-profile/a1b2c3d4e5f6",
    "arn:aws:bedrock:us-west-2:123456789012:provisioned-model/abcd1234efgh",
    "arn:aws:sagemaker:us-east-1:123456789012:endpoint/my-Llama3-70B-Endpoint-2024-11-24-10-15",
    "accounts/fireworks/models/llama-v3p1-nemotron-70b-instruct",
    "accounts/my-team-1/deployedModels/qwen3-coder-480b-a35b-instruct-abc12def",
    "projects/my-project-42/locations/us-central1/endpoints/1234567890123456789",
    "publishers/anthropic/models/claude-sonnet-4-5@20250929",
    "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8",
    "meta-llama/Meta-Llama-3.1-405B-Instruct-FP8-Dynamic",
    "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF:Q4_K_M",
    "TheBloke/Mixtral-8x7B-Instruct-v0.1-GPTQ-4bit-32g-actorder_True",
    "unsloth/DeepSeek-R1-Distill-Qwen-32B-unsloth-bnb-4bit",
    "NousResearch/Nous-Hermes-2-Mixtral-8x7B-DPO",
    "hf.co/bartowski/Qwen2.5-Coder-32B-Instruct-GGUF:IQ4_XS",
    "nvidia/Llama-3_3-Nemotron-Super-49B-v1_5-FP8",
    "Qwen/Qwen3-VL-235B-A22B-Instruct",
    "CohereForAI/c4ai-command-r-plus-08-2024",
    "hf_transformers_fine_tuned_classifier",
    "myCompanyGPT4oMiniEastUS2Deployment01Production",
    "Contoso-GPT5-Chat-EU-DataZone-Prod-2026-01-15-Canary",
    "stability-ai/sdxl:7762fd07cf82c948538e41f63f77d685e02b063e37e496e96eefd46c929f9bdc",
    "me/model@9fbfebf0aa11bb22cc33dd44ee55ff6677889900",
    "/models/hub/models--meta-llama--Llama-3.1-8B/snapshots/0e9e39f249a16976918f6564b8830bc894c89659",
    "/var/lib/ollama/models/blobs/sha256-6a0746a1ec1aef3e7ec53868f220ff6e389f6f8ef87a01d77c96807de94ca2aa",
    "sha256:6a0746a1ec1aef3e7ec53868f220ff6e389f6f8ef87a01d77c96807de94ca2aa",
    // Sessions, agents, runs.
    "9f1c2b7e-5d0a-4c7e-9b0e-3f6a1d2c4b5e",
    "9f1c2b7e-5d0a-4c7e-9b0e-3f6a1d2c4b5e1732450000000",
    "019ac1f0-5a3b-7d21-8f00-aabbccddeeff/019ac1f0-5a3b-7d21-8f00-aabbccddee00/019ac1f0-5a3b-7d21-8f00-aabbccddee01",
    "agent-019ac1f0-5a3b-7d21-8f00-aabbccddeeff_019ac1f0-5a3b-7d21-8f00-aabbccddee00",
    "01JD9Z3V6E8Q2R4T6Y8W0X1C3B",
    "AKIA1JD9Z3V",
    "ses_6f3a1b2c4d5eFfGgHhIiJjKkLl",
    "sess-01jd9z3v6e8q2r4t6y8w0x1c3b",
    "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b",
    "msg_01AbCdEfGhIjKlMnOpQrStUv",
    "thread_0123456789abcdefABCDEFgh",
    "chatcmpl-CbA1cD2eF3gH4iJ5kL6mN7oP8qR9s",
    "session-2026-11-24T12:00:00.000Z-host.example.com-12345",
    "general-purpose",
    // Projects, clients, branches.
    "task-ant-design-v5",
    "feature/task-proj-cleanup-2024",
    "helpdesk-admin-portal-v2",
    "desk-or-chair-classifier-3",
    "highs_benchmark2024",
    "sk-learn-experiments-2024-v2",
    "sk-learn-experiments2024",
    "key-value-store-benchmarks-2025",
    "pypi-package-downloads-2024",
    "xapp-frontend-2",
    "tskey-rotation-tool2",
    "xai-org-mirror",
    "feature/bearer-token-refresh-2",
    "bearer-of-news",
    "halton-meter",
    "the-very-long-name-of-a-project-that-somebody-has-thought-of-2",
    "theverylongnameofaprojectthatsomebodyhasthoughtof2025and2026",
    "Überaus-langer-Projektname-für-die-Abteilung-Straßenverkehr",
    "日本語のとても長いプロジェクト名日本語のとても長いプロジェクト名",
];

#[test]
fn names_that_are_in_use_are_no_keys() {
    let book: Value = serde_json::from_str(include_str!("../../../config/prices.json")).unwrap();
    let models = book["models"].as_array().unwrap();
    let names = |m: &Value| {
        let more = m["names"].as_array().cloned().unwrap_or_default();
        more.into_iter().chain([m["m"].clone()]).collect::<Vec<_>>()
    };
    let listed: Vec<Value> = models.iter().flat_map(names).collect();
    assert!(listed.len() > 2000, "{}", listed.len());
    let listed = listed.iter().map(|name| name.as_str().unwrap().to_owned());
    let dated = |name: String| {
        let upper = name.to_uppercase();
        [format!("{name}-20260601"), format!("us-gov.{name}:latest"), upper, name]
    };
    let taken: Vec<String> = listed
        .flat_map(dated)
        .chain(NAMES.iter().map(|name| (*name).to_owned()))
        .filter(|name| either(name, is_key))
        .collect();
    assert_eq!(taken, Vec::<String>::new());
}

#[test]
fn paths_that_are_in_use_stay() {
    for kept in [
        "/v1/messages",
        "/v1/messages/batches/msgbatch_01HkcTjaV5uDC8jWR4ZsDV8d/results",
        "/v1/responses/resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b/cancel",
        "/v1/interactions/v1_ChdXS0l4YWZXTk9xbk0xZThQczhEcmlROBIXV0tJeGFmV05PcW5NMWU4UHM4RHJpUTg",
        "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Feu.amazon.nova-lite-v1%3A0/converse",
        "/v1beta/models/gemini-2.5-pro:streamGenerateContent",
        "/v1/projects/p/locations/l/publishers/anthropic/models/claude-x%4020250929:rawPredict",
        "/api/blobs/sha256:6a0746a1ec1aef3e7ec53868f220ff6e389f6f8ef87a01d77c96807de94ca2aa",
        "/v1/0123456789abcdef0123456789abcdef/my-gateway/openai/chat/completions",
        "/aiserver.v1.ChatService/StreamUnifiedChatWithTools",
        "/google.ai.generativelanguage.v1beta.GenerativeService/StreamGenerateContent",
    ] {
        assert_eq!(path(kept), kept);
    }
    for segment in [
        "sk-x",
        "ésk-0123456789abcdef01",
        "Bearer%20abcdefgh",
        "a-sk-ant-api03-abcdef",
        "a-sk%2Dant%2Dapi03%2Dabcdef",
    ] {
        assert_eq!(path(&format!("/v1/{segment}/x")), "/v1/[redacted]/x");
    }
}

#[test]
fn tokens_by_chance_are_keys_and_what_is_shorter_is_not() {
    for key in [
        "q8ZrT2mVx0LcYp5KdN7wHs3JbF9uGaE1iRoXtWvP",
        "c2VjcmV0LXNlY3JldC1zZWNyZXQ0Nzg5MTIzNDU2Nzg5MDEyMzQ1",
        "x-7762fd07cf82c948538e41f63f77d685e02b063e37e496e96eefd46c929f9bdc",
        "k3j9x7q2m5v8z1w4t6r0p3n7b2g5h8d1f4s6c9l0",
        "K3J9X7Q2M5V8Z1W4T6R0P3N7B2G5H8D1F4S6C9L0",
    ] {
        assert!(is_key(key), "{key}");
        assert!(!is_key(&key[..30]), "{key}");
    }
}

/// Some are like words by chance; not many.
#[test]
fn hardly_any_token_by_chance_is_a_name() {
    let mut runner = TestRunner::deterministic();
    let (digits, small) = ("0123456789", "abcdefghijklmnopqrstuvwxyz");
    let base62 = format!("{digits}{small}{}", small.to_uppercase());
    for (signs, length) in [
        (base62.clone(), 48),
        (format!("{base62}_-"), 48),
        (format!("{digits}abcdef"), 64),
        (format!("{digits}{small}"), 64),
    ] {
        let sign = prop::sample::select(signs.chars().collect::<Vec<_>>());
        let token = prop::collection::vec(sign, length);
        let mut random = || String::from_iter(token.new_tree(&mut runner).unwrap().current());
        let left = (0..1000).filter(|_| !is_key(&random())).count();
        assert!(left <= 60, "{left} of 1000: {signs}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_key_is_a_name(
        key in (0..KEYS.len()).prop_flat_map(|n| string_regex(KEYS[n]).unwrap()),
        around in 0..4usize,
    ) {
        let around = ["@", "abc-@", "x/@/y", "my.@:latest"][if key.contains(' ') { 0 } else { around }];
        let name = around.replace('@', &key);
        prop_assert!(is_key(&name), "{name}");
        prop_assert!(either(&name.replace('-', "%2D").replace('_', "%5f"), is_key), "{name}");
    }

    #[test]
    fn ids_are_names(id in "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9A-HJKMNP-TV-Z]{26}|[a-zA-IK-Z0-9]{1,11}|[a-f0-9]{32}") {
        for name in [id.clone(), format!("session-{id}"), format!("{id}.{id}")] {
            prop_assert!(!either(&name, is_key), "{name}");
        }
    }
}

#[test]
fn what_is_no_key_hides_none_and_words_do_not() {
    for name in ["desk-ant-sk-ant-api03-abcdefgh", "keysk-ant-api03-aBcdefgh", "task_ghs_abcdefgh1"]
    {
        assert!(is_of_a_form(name), "{name}");
    }
}

const KEY: &str = "sk-ant-api03-abcdefghijklmnop";

#[test]
fn a_row_holds_no_key_wherever_the_client_puts_it() {
    let at = |case: Case| {
        let row = case.row();
        let text = serde_json::to_string(&row).unwrap();
        assert!(!text.contains("abcdefgh"), "{text}");
        row
    };
    let body =
        format!(r#"{{"model":"{KEY}","stream":true,"metadata":{{"user_id":"a_session_{KEY}"}}}}"#);
    let row = at(Case { request: body.into_bytes(), ..Case::default() });
    assert_eq!(row.model_requested.as_deref(), Some(REDACTED));
    assert_eq!(row.session.as_deref(), Some(REDACTED));
    let body = format!(
        r#"{{"id":"{KEY}","model":"{KEY}","type":"message","usage":{{"input_tokens":1,"output_tokens":1}}}}"#
    );
    let row = at(Case { body: body.into_bytes(), ..Case::default() });
    assert_eq!((row.model.as_deref(), row.response_id), (Some(REDACTED), None));
    for target in [
        "/v1/x-sk-ant-api03-abcdefghijklmnop/chat/completions",
        "/openai/deployments/sk-ant-api03-abcdefghijklmnop/chat/completions",
        "/v1/realtime?model=sk-ant-api03-abcdefghijklmnop",
        "/v1/files/sk-ant-api03-abcdefghijklmnop/content",
    ] {
        at(Case { host: "api.openai.com", target, ..Case::default() });
        at(Case { host: "api.openai.com", method: "GET", target, ..Case::default() });
    }
    for name in ["x-claude-code-session-id", "x-claude-code-agent-id", "user-agent", "session-id"] {
        at(Case { request_headers: vec![(name, KEY)], ..Case::default() });
    }
}

#[test]
fn what_is_known_of_the_client_holds_none_either() {
    use crate::meter::attribution::{Attribution, Method};
    let key = || Some(KEY.to_owned());
    let own = Attribution {
        program: key(),
        project: key(),
        project_source: Some(Method::Git),
        branch: key(),
        run: key(),
        cwd: Some(format!("/home/u/{KEY}/src")),
        ..Attribution::default()
    };
    let mut row = Case::default().row();
    own.apply(&mut row);
    assert!(!serde_json::to_string(&row).unwrap().contains("abcdefgh"), "{row:?}");
    assert_eq!(row.cwd.as_deref(), Some("/home/u/[redacted]/src"));
    // A directory may be named by a digest, and a project by the commit that is built.
    let digest = "9fbfebf0aa11bb22cc33dd44ee55ff6677889900";
    for source in [Method::Cwd, Method::Explicit] {
        let project = Some(digest.to_owned());
        let own = Attribution { project, project_source: Some(source), ..Attribution::default() };
        let mut row = Case::default().row();
        own.apply(&mut row);
        assert_eq!(row.project.as_deref(), Some(digest));
    }
}
