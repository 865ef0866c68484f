//! The SDKs that the full suite adds, and the standard libraries of Go and Java.

use std::process::Command;

use crate::cli_tools::metered;
use crate::clients::sdk;
use crate::clis::{full_node, full_python};
use crate::harness::Stand;
use crate::programs::{CLAUDE, GEMINI, GPT, Program, full, missing, script, show};

const BEDROCK: &str = "global.anthropic.claude-sonnet-4-5-20250929-v1:0";
const PROMPT: &str = "[[coding=gzip slice=11 thinking]]";

/// `sdk`, where the full suite is installed.
fn full_sdk(program: impl Fn(&str, &str) -> Option<Program>, modes: &[&str], prompts: &[&str]) {
    if program(modes[0], prompts[0]).is_some() {
        sdk(|mode, prompt| program(mode, prompt).expect("as just now"), modes, prompts);
    }
}

#[test]
fn python_mistral() {
    full_sdk(
        |mode, prompt| full_python("full/mistral_sdk.py", &[mode, "mistral-small-latest", prompt]),
        &["json", "stream"],
        &["hi", "[[coding=gzip slice=11]]"],
    );
}

#[test]
fn python_cohere() {
    full_sdk(
        |mode, prompt| full_python("full/cohere_sdk.py", &[mode, "command-r-08-2024", prompt]),
        &["json", "stream"],
        &["hi", "[[coding=gzip slice=11]]"],
    );
}

#[test]
fn python_bedrock() {
    let stand = Stand::new();
    // Its signature holds the time, so that no two runs are equal byte for byte.
    for mode in ["converse", "converse-stream", "invoke", "anthropic", "anthropic-stream"] {
        let Some(program) = full_python("full/bedrock_sdk.py", &[mode, BEDROCK, "hi [[slice=11]]"])
        else {
            return;
        };
        for (served, row) in metered(&stand, &program, "h1") {
            assert!(served.host.starts_with("bedrock-runtime.eu-west-1."), "{served:?}");
            let surface =
                if mode.starts_with("conv") { "bedrock.converse" } else { "bedrock.invoke" };
            assert_eq!(row["surface"], surface, "{row:#}");
        }
    }
}

#[test]
fn python_vertex() {
    for (mode, model) in [("gemini", GEMINI), ("anthropic", "claude-sonnet-4-5@20250929")] {
        full_sdk(
            |stream, prompt| {
                full_python("full/vertex_sdk.py", &[&format!("{mode}{stream}"), model, prompt])
            },
            &["", "-stream"],
            &[PROMPT],
        );
    }
}

#[test]
fn node_openai() {
    full_sdk(
        |mode, prompt| full_node("full/openai_sdk.mjs", &[mode, GPT, prompt]),
        &["chat", "chat-stream", "responses", "responses-stream"],
        &["[[coding=br slice=11 thinking]]"],
    );
}

#[test]
fn node_google_genai() {
    full_sdk(
        |mode, prompt| full_node("full/genai_sdk.mjs", &[mode, GEMINI, prompt]),
        &["json", "stream"],
        &["[[coding=br slice=11 thinking]]"],
    );
}

#[test]
fn go() {
    let Some(program) = full("messages.go", "program") else { return };
    let stand = Stand::new();
    metered(&stand, &Program::new([program]).args(&[CLAUDE, PROMPT]), "h2");
}

/// Java knows neither the variable of the proxy nor a bundle of roots: it is told by properties, as
/// docs/clients.md says.
#[test]
fn java() {
    if Command::new("keytool").arg("-help").output().is_err() {
        return missing("java");
    }
    let stand = Stand::new();
    stand.must(&["start"]);
    let store = stand.scratch().join("trusted.p12").display().to_string();
    let ca = stand.home.ca_cert().display().to_string();
    let words = ["-importcert", "-noprompt", "-alias", "halton-meter", "-storetype", "PKCS12"];
    let made = Command::new("keytool")
        .args(words)
        .args(["-storepass", "changeit", "-keystore", &store, "-file", &ca])
        .output()
        .expect("keytool");
    assert!(made.status.success(), "{}", show(&made));
    let options = format!(
        "-Dhttps.proxyHost={} -Dhttps.proxyPort={} -Djavax.net.ssl.trustStore={store} \
         -Djavax.net.ssl.trustStorePassword=changeit",
        stand.edge.ip(),
        stand.edge.port(),
    );
    let program = Program::new(["java".to_owned(), script("full/Messages.java")])
        .args(&[CLAUDE, "hi [[slice=11]]"])
        .env("JAVA_TOOL_OPTIONS", options);
    for (_, row) in metered(&stand, &program, "h2") {
        assert_eq!(row["client"], "Messages", "{row:#}");
    }
}
