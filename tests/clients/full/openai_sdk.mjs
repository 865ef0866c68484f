// usage: node openai_sdk.mjs chat|chat-stream|responses|responses-stream MODEL PROMPT
import { createRequire } from "node:module";

const require = createRequire(process.env.HALTON_NODE_DIR + "/");
const { OpenAI } = require("openai");
const { EnvHttpProxyAgent, fetch } = require("undici");

const [mode, model, prompt] = process.argv.slice(2);
const client = new OpenAI({
  apiKey: "dummy-key",
  maxRetries: 0,
  fetch,
  fetchOptions: { dispatcher: new EnvHttpProxyAgent() },
});
const messages = [{ role: "user", content: prompt }];
let text = "";
if (mode === "chat") {
  const answer = await client.chat.completions.create({ model, messages });
  text = answer.choices[0].message.content;
} else if (mode === "chat-stream") {
  const stream = await client.chat.completions.create({
    model,
    messages,
    stream: true,
    stream_options: { include_usage: true },
  });
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
} else if (mode === "responses") {
  text = (await client.responses.create({ model, input: prompt })).output_text;
} else {
  const stream = await client.responses.create({ model, input: prompt, stream: true });
  for await (const event of stream)
    if (event.type === "response.output_text.delta") text += event.delta;
}
console.log(JSON.stringify({ text }));
process.exit(0);
