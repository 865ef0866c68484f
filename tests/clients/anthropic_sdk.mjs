// usage: node anthropic_sdk.mjs json|stream MODEL PROMPT
// Node's own fetch ignores HTTPS_PROXY before 22.21, hence undici's agent.
import { createRequire } from "node:module";

const require = createRequire(process.env.HALTON_NODE_DIR + "/");
const { Anthropic } = require("@anthropic-ai/sdk");
const { EnvHttpProxyAgent, fetch } = require("undici");

const [mode, model, prompt] = process.argv.slice(2);
const client = new Anthropic({
  apiKey: "dummy-key",
  maxRetries: 0,
  fetch,
  fetchOptions: { dispatcher: new EnvHttpProxyAgent() },
});
const ask = { model, max_tokens: 64, messages: [{ role: "user", content: prompt }] };
const message =
  mode === "stream"
    ? await client.messages.stream(ask).finalMessage()
    : await client.messages.create(ask);
console.log(
  JSON.stringify({
    text: message.content[0].text,
    input: message.usage.input_tokens,
    output: message.usage.output_tokens,
    model: message.model,
  }),
);
process.exit(0);
