//! The command-line tools, as their users start them: one prompt, made-up credentials.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::origin::{ACCOUNT, base64};
use crate::programs::{CLAUDE, GEMINI, GPT, Program, full, installed, script};

/// What only the full suite installs.
const FULL: &str = "full/package.json";

/// One prompt to Claude Code, the program itself, with an API key.
pub fn claude_code(prompt: &str) -> Program {
    claude_code_for(CLAUDE, prompt).env("ANTHROPIC_API_KEY", "dummy-key")
}

/// Without credentials: what they are decides where it goes.
pub fn claude_code_for(model: &str, prompt: &str) -> Program {
    let path = format!("node_modules/@anthropic-ai/claude-code-{}-{}/claude", os(), cpu());
    Program::new([installed("package.json", &path)])
        .args(&["-p", prompt, "--output-format", "json", "--model", model])
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
        .env("DISABLE_AUTOUPDATER", "1")
}

/// One prompt to Codex, with an API key.
pub fn codex(home: &Path, prompt: &str) -> Program {
    codex_in(home, prompt).env("OPENAI_API_KEY", "dummy-key").env("CODEX_API_KEY", "dummy-key")
}

/// One prompt to Codex, logged in with a ChatGPT account that does not exist.
pub fn codex_logged_in(home: &Path, prompt: &str) -> Program {
    let program = codex_in(home, prompt);
    let claims = json!({ "email": "someone@example.com", "exp": 4_000_000_000u64,
        "https://api.openai.com/auth": { "chatgpt_plan_type": "plus", "chatgpt_user_id": "user-1",
                                         "chatgpt_account_id": ACCOUNT } });
    let part = |json: serde_json::Value| {
        let text = base64(json.to_string().as_bytes());
        text.replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned()
    };
    let token = format!("{}.{}.c2lnbmF0dXJl", part(json!({ "alg": "RS256" })), part(claims));
    let tokens = json!({ "id_token": token, "access_token": token, "refresh_token": "dummy",
                         "account_id": ACCOUNT });
    let now = jiff::Timestamp::now().to_string();
    let auth = json!({ "auth_mode": "chatgpt", "OPENAI_API_KEY": null, "tokens": tokens,
                       "last_refresh": now });
    fs::write(home.join("auth.json"), auth.to_string()).expect("auth.json");
    program
}

fn codex_in(home: &Path, prompt: &str) -> Program {
    let system = if cfg!(target_vendor = "apple") { "apple-darwin" } else { "unknown-linux-musl" };
    let target = if cfg!(target_arch = "aarch64") { "aarch64" } else { "x86_64" };
    let package = format!("node_modules/@openai/codex-{}-{}", os(), cpu());
    let path = format!("{package}/vendor/{target}-{system}/bin/codex");
    fs::create_dir_all(home).expect("a home for Codex");
    Program::new([installed("package.json", &path)])
        .args(&["exec", "--skip-git-repo-check", "-m", GPT, prompt])
        .env("CODEX_HOME", home.display().to_string())
}

/// One prompt to Gemini CLI, without credentials.
pub fn gemini(prompt: &str) -> Option<Program> {
    let path = full(FULL, "node_modules/@google/gemini-cli/bundle/gemini.js")?;
    let program = Program::new(["node", "--no-warnings", &path]);
    Some(program.args(&["--skip-trust", "-m", GEMINI, "-p", prompt]))
}

/// One prompt to opencode; `model` is PROVIDER/MODEL.
pub fn opencode(model: &str, prompt: &str) -> Option<Program> {
    let path = full(FULL, &format!("node_modules/opencode-{}-{}/bin/opencode", os(), cpu()))?;
    let program = Program::new([path]).args(&["run", "-m", model, prompt]);
    Some(
        program
            .env("ANTHROPIC_API_KEY", "dummy-key")
            .env("OPENAI_API_KEY", "dummy-key")
            .env("OPENCODE_DISABLE_AUTOUPDATE", "1"),
    )
}

/// One prompt to Copilot CLI, without credentials.
pub fn copilot(model: &str, prompt: &str) -> Option<Program> {
    let path = full(FULL, &format!("node_modules/@github/copilot-{}-{}/copilot", os(), cpu()))?;
    let program = Program::new([path]).args(&["-p", prompt, "--allow-all-tools", "--model", model]);
    Some(program.env("COPILOT_AUTO_UPDATE", "false"))
}

/// One prompt to aider.
pub fn aider(model: &str, prompt: &str) -> Option<Program> {
    let program = Program::new([full("full/aider.txt", "bin/aider")?]);
    Some(
        program
            .args(&["--model", model, "--message", prompt, "--no-git", "--yes-always"])
            .args(&["--analytics-disable", "--no-check-update", "--no-show-release-notes"])
            .env("OPENAI_API_KEY", "dummy-key")
            .env("ANTHROPIC_API_KEY", "dummy-key"),
    )
}

/// One prompt to llm, with its plugins.
pub fn llm(home: &Path, model: &str, prompt: &str) -> Option<Program> {
    let program = Program::new([full("full/llm.txt", "bin/llm")?]);
    Some(
        program
            .args(&["-m", model, prompt])
            .env("LLM_USER_PATH", home.display().to_string())
            .env("OPENAI_API_KEY", "dummy-key")
            .env("ANTHROPIC_API_KEY", "dummy-key")
            .env("LLM_GEMINI_KEY", "dummy-key"),
    )
}

/// A program of Python's packages that only the full suite installs.
pub fn full_python(name: &str, args: &[&str]) -> Option<Program> {
    let python = full("full/requirements.txt", "bin/python")?;
    Some(Program::new([python, script(name)]).args(args))
}

/// The same of Node's.
pub fn full_node(name: &str, args: &[&str]) -> Option<Program> {
    Some(crate::programs::node_with(full(FULL, "node_modules")?, name, args))
}

fn os() -> &'static str {
    if cfg!(target_vendor = "apple") { "darwin" } else { "linux" }
}

fn cpu() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" }
}
