// usage: node axios.mjs URL MODEL PROMPT - a message by axios; prints its text and what it cost.
import { createRequire } from "node:module";

const require = createRequire(process.env.HALTON_NODE_DIR + "/");
const axios = require("axios");

const [url, model, prompt] = process.argv.slice(2);
const ask = { model, max_tokens: 64, messages: [{ role: "user", content: prompt }] };
const { data } = await axios.post(url, ask, {
  headers: { "x-api-key": "dummy-key", "anthropic-version": "2023-06-01" },
});
console.log(
  JSON.stringify({
    text: data.content[0].text,
    input: data.usage.input_tokens,
    output: data.usage.output_tokens,
    model: data.model,
  }),
);
