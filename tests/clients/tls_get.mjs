// usage: node tls_get.mjs HOST PORT CA_FILE - a TLS handshake; prints ok or the reason.
import { readFileSync } from "node:fs";
import { connect } from "node:tls";

const [host, port, caFile] = process.argv.slice(2);
const options = { host: "127.0.0.1", port, servername: host, ca: readFileSync(caFile) };
const socket = connect(options, () => {
  console.log("ok");
  socket.destroy();
});
socket.on("error", (e) => console.log(`refused: ${e.code ?? ""} ${e.message}`));
