// usage: node cursor.mjs MODEL
// What Cursor's agent does, as far as others have found out: Connect's envelopes with protocol buffers
// over HTTP/2, in both directions at once. The second message goes out when the first answer is there.
import { request } from "node:http";
import { connect as h2 } from "node:http2";
import { connect as tls } from "node:tls";
import { gzipSync } from "node:zlib";

const host = "agentn.us.api5.cursor.sh";
const field = (number, inner) =>
  Buffer.concat([Buffer.from([(number << 3) | 2, inner.length]), Buffer.from(inner)]);
const envelope = (flags, payload) => {
  const head = Buffer.alloc(5);
  head[0] = flags;
  head.writeUInt32BE(payload.length, 1);
  return Buffer.concat([head, payload]);
};

const fail = (why) => {
  console.error(why);
  process.exit(1);
};
const proxy = new URL(process.env.HTTPS_PROXY);
const tunnel = request({ host: proxy.hostname, port: proxy.port, method: "CONNECT", path: `${host}:443` });
tunnel.on("error", fail);
tunnel.on("connect", (response, socket) => {
  if (response.statusCode !== 200) fail(response.statusCode);
  const secure = tls({ socket, servername: host, ALPNProtocols: ["h2"] }, () => run(secure));
  secure.on("error", fail);
});
tunnel.end();

function run(secure) {
  const session = h2(`https://${host}`, { createConnection: () => secure });
  session.on("error", fail);
  const stream = session.request({
    ":method": "POST",
    ":path": "/agent.v1.AgentService/Run",
    "content-type": "application/connect+proto",
    "connect-protocol-version": "1",
    "connect-content-encoding": "gzip",
    "authorization": "Bearer dummy-key",
    "x-request-id": "00000000-0000-4000-8000-000000000000",
  });
  const texts = [];
  let buffer = Buffer.alloc(0);
  const message = (flags, payload) => {
    if (flags & 2) {
      stream.end();
      session.close();
      console.log(JSON.stringify({ texts, end: payload.toString() }));
      return;
    }
    // AgentServerMessage { 1: InteractionUpdate { 1: TextDelta { 1: text } } }
    if (payload[2] !== 0x0a) return;
    texts.push(payload.subarray(6).toString());
    // A heartbeat, compressed.
    if (texts.length === 1) stream.write(envelope(1, gzipSync(field(7, ""))));
  };
  stream.on("error", fail);
  stream.on("data", (data) => {
    buffer = Buffer.concat([buffer, data]);
    while (buffer.length >= 5 && buffer.length >= 5 + buffer.readUInt32BE(1)) {
      const end = 5 + buffer.readUInt32BE(1);
      message(buffer[0], buffer.subarray(5, end));
      buffer = buffer.subarray(end);
    }
  });
  // AgentClientMessage { 1: AgentRunRequest { 9: RequestedModel { 1: id } } }
  stream.write(envelope(0, field(1, field(9, field(1, process.argv[2])))));
}
