// usage: node sockets.mjs MODEL PROMPT
// Three responses on one WebSocket of undici's.
import { createRequire } from "node:module";

const require = createRequire(process.env.HALTON_NODE_DIR + "/");
const { EnvHttpProxyAgent, WebSocket } = require("undici");

const [model, prompt] = process.argv.slice(2);
const socket = new WebSocket("wss://api.openai.com/v1/responses", {
  dispatcher: new EnvHttpProxyAgent(),
  headers: { authorization: "Bearer dummy-key" },
});
const texts = [];
let text = "";
const ask = () =>
  socket.send(JSON.stringify({ type: "response.create", model, input: prompt, store: false }));
socket.onopen = ask;
socket.onerror = (event) => {
  console.error(event.error ?? event);
  process.exit(1);
};
socket.onmessage = ({ data }) => {
  const message = JSON.parse(data);
  if (message.type === "response.output_text.delta") text += message.delta;
  if (message.type !== "response.completed") return;
  texts.push(text);
  text = "";
  if (texts.length < 3) ask();
  else socket.close(1000);
};
socket.onclose = () => {
  console.log(JSON.stringify({ texts }));
  process.exit(texts.length === 3 ? 0 : 1);
};
