// Runs the dashboard's own script against the running daemon, with a document just good enough for it.
// Arguments: the address that `halton-meter dashboard` prints. Says READY once the page shows figures, then
// waits for an event and prints what is to be seen, as JSON; logs out and prints that too.
const [url] = process.argv.slice(2);
const { origin, hash } = new URL(url);

import { ids, page, start, until } from "./dom.mjs";

// A browser's part: the cookie, and Origin where it sends one.
let jar = "";
let cookie = "";
const real = globalThis.fetch;
globalThis.fetch = async (path, options = {}) => {
  const headers = { ...options.headers };
  if (jar) headers.cookie = jar;
  if (options.method) headers.origin = origin;
  const answer = await real(origin + path, { ...options, headers });
  const set = answer.headers.get("set-cookie");
  if (set) {
    cookie = set;
    jar = set.includes("Max-Age=0") ? "" : set.split(";")[0];
  }
  return answer;
};

start(hash);
await page(await (await real(`${origin}/dashboard.js`)).text());
await until("figures", () => ids.main && !ids.main.hidden && ids.cards?.children.length === 3);
console.log("READY");
await until("event", () => ids.events?.children.length > 0);
const text = Object.fromEntries(Object.entries(ids).map(([id, node]) => [id, node.textContent]));
const names = [...new Set(Object.values(ids).flatMap((node) => node.all()).map((node) => node.name))];
const before = cookie;
ids.logout.hears.click();
await until("logout", () => ids.main.hidden);
console.log(JSON.stringify({
  text, names, cookie: before, hash: location.hash, after: { cookie, trouble: ids.trouble.textContent, key: localStorage.size },
}));
process.exit(0);
