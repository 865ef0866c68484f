// Runs the dashboard's own script against the running daemon, with a document just good enough for it.
// Arguments: the address that `halton-meter dashboard` prints. Says READY once the page shows figures, then
// waits for an event and prints what is to be seen, as JSON; logs out and prints that too.
const [url] = process.argv.slice(2);
const { origin, hash } = new URL(url);

class Node {
  constructor(name) {
    Object.assign(this, { name, children: [], own: "", style: {}, attributes: {}, hears: {}, hidden: name === "main" });
  }
  set textContent(text) { this.children = []; this.own = String(text); }
  get textContent() { return [this.own, ...this.children.map((c) => c.textContent)].filter(Boolean).join("|"); }
  get childElementCount() { return this.children.length; }
  append(...nodes) { this.children.push(...nodes); }
  prepend(...nodes) { this.children.unshift(...nodes); }
  replaceChildren(...nodes) { this.own = ""; this.children = nodes; }
  setAttribute(name, value) { this.attributes[name] = value; }
  addEventListener(name, hear) { this.hears[name] = hear; }
  all() { return [this, ...this.children.flatMap((c) => c.all())]; }
}
for (const markup of ["innerHTML", "outerHTML"]) {
  Object.defineProperty(Node.prototype, markup, { set() { throw new Error(`${markup} is set`); } });
}

const ids = {};
globalThis.document = {
  hidden: false,
  getElementById: (id) => (ids[id] ??= new Node(id)),
  createElement: (name) => new Node(name),
  addEventListener() {},
};
globalThis.location = { hash, pathname: "/" };
globalThis.history = { replaceState() { location.hash = ""; } };
globalThis.addEventListener = () => {};
const stored = new Map();
globalThis.localStorage = {
  getItem: (k) => stored.get(k) ?? null, setItem: (k, v) => stored.set(k, v), removeItem: (k) => stored.delete(k),
};

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

const until = async (what, done) => {
  for (let i = 0; i < 1500; i++) {
    if (done()) return;
    await new Promise((go) => setTimeout(go, 20));
  }
  throw new Error(`no ${what}: ${JSON.stringify(Object.fromEntries(Object.entries(ids).map(([k, n]) => [k, n.textContent])))}`);
};

const page = await (await real(`${origin}/dashboard.js`)).text();
await import(`data:text/javascript,${encodeURIComponent(page)}`);
await until("figures", () => ids.main && !ids.main.hidden && ids.cards?.children.length === 3);
console.log("READY");
await until("event", () => ids.events?.children.length > 0);
const text = Object.fromEntries(Object.entries(ids).map(([id, node]) => [id, node.textContent]));
const names = [...new Set(Object.values(ids).flatMap((node) => node.all()).map((node) => node.name))];
const before = cookie;
ids.logout.hears.click();
await until("logout", () => ids.main.hidden);
console.log(JSON.stringify({
  text, names, cookie: before, hash: location.hash, after: { cookie, trouble: ids.trouble.textContent, key: stored.size },
}));
process.exit(0);
