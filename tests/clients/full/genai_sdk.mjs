// usage: node genai_sdk.mjs json|stream MODEL PROMPT
// It uses Node's own fetch, which knows of undici's dispatcher only as the global one.
import { createRequire } from "node:module";

const require = createRequire(process.env.HALTON_NODE_DIR + "/");
const { EnvHttpProxyAgent, setGlobalDispatcher } = require("undici");
const { GoogleGenAI } = require("@google/genai");

setGlobalDispatcher(new EnvHttpProxyAgent());
const [mode, model, contents] = process.argv.slice(2);
const client = new GoogleGenAI({ apiKey: "dummy-key" });
let text = "";
if (mode === "stream") {
  const stream = await client.models.generateContentStream({ model, contents });
  for await (const chunk of stream) text += chunk.text ?? "";
} else {
  text = (await client.models.generateContent({ model, contents })).text;
}
console.log(JSON.stringify({ text }));
process.exit(0);
