// A document just good enough for the dashboard's own script, which must make no markup of text.

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

export const ids = {};
globalThis.document = {
  hidden: false,
  hears: {},
  getElementById: (id) => (ids[id] ??= new Node(id)),
  createElement: (name) => new Node(name),
  addEventListener(name, hear) { this.hears[name] = hear; },
};
/** With this behind the address's `#`. */
export const start = (hash) => { globalThis.location = { hash, pathname: "/" }; };
globalThis.history = { replaceState() { location.hash = ""; } };
globalThis.addEventListener = () => {};
const stored = new Map();
globalThis.localStorage = {
  get size() { return stored.size; },
  getItem: (k) => stored.get(k) ?? null, setItem: (k, v) => stored.set(k, v), removeItem: (k) => stored.delete(k),
};

export const until = async (what, done) => {
  for (let i = 0; i < 1500; i++) {
    if (done()) return;
    await new Promise((go) => setTimeout(go, 20));
  }
  throw new Error(`no ${what}: ${JSON.stringify(Object.fromEntries(Object.entries(ids).map(([k, n]) => [k, n.textContent])))}`);
};

export const page = (script) => import(`data:text/javascript,${encodeURIComponent(script)}`);
