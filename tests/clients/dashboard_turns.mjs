// Runs the dashboard's own script with answers made up here: what it shows when some of them fail, come late,
// or it is not looked at. Argument: the script. Ends with an error at what is wrong.
import assert from "node:assert";
import { readFileSync } from "node:fs";
import { ids, page, start, until } from "./dom.mjs";

const none = { passed_connections: 0, passed_by_reason: {}, passed_lines_lost: 0, cut_connections: 0,
  unfollowed_connections: 0, lost_connections: 0, lost_rows: 0, set_aside: [], ledgers_gone: 0 };
const tokens = { input: 1, cache_read: null, cache_write_5m: null, cache_write_1h: null, cache_write_other: null, output: 2 };
const totals = { requests: 1, errors: 0, estimated: 0, tokens, cost_nanousd: 5, subscription_nanousd: null, unpriced: 0, without_usage: 0 };
const days = (since) => Math.round((Date.now() - new Date(since)) / 86_400_000);
const event = { at: "2026-11-30T10:00:00Z", process: "daemon", event: "child_ready", child: "tap" };
const stats = (query) => ({
  summary: totals, coverage: none, dated_ahead: 0,
  groupings: [{ by: query.get("by"), groups: [{ ...totals, key: `since ${days(query.get("since"))} days` }] }],
});
const answers = {
  "/v1/status": () => ({ health: { status: "ok", version: "1", reasons: [] }, edge: {} }),
  "/v1/stats": stats,
  "/v1/requests": () => ({ requests: [] }),
  "/v1/quotas": () => ({ quotas: [] }),
  "/v1/budgets": () => ({ problem: null, budgets: [{ name: "all", per: "day", spent_nanousd: 0, unpriced: 1, limit: "1.00" }] }),
  "/v1/actors": () => ({ actors: [] }),
};

const failing = new Set();
const asked = [];
let open = 0;
let held = null;
globalThis.fetch = async (path, { signal } = {}) => {
  const url = new URL(path, "http://here");
  asked.push(url.pathname);
  if (url.pathname === "/v1/session" || failing.has(url.pathname)) return new Response("{}", { status: url.pathname === "/v1/session" ? 401 : 503 });
  if (url.pathname === "/v1/events") return new Response(`id: i:1\nevent: child_ready\ndata: ${JSON.stringify(event)}\n\n`);
  assert(signal, `${path} could wait for ever`);
  open += 1;
  // As if the abort came too late: the answer is on its way.
  if (held !== null && url.searchParams.get("by") === "project" && days(url.searchParams.get("since")) > 20) await held;
  open -= 1;
  return Response.json(answers[url.pathname](url.searchParams));
};

// In the background, with an old link: nothing is asked but whether the link is good.
document.hidden = true;
start("#login=old");
await page(readFileSync(process.argv[2], "utf8"));
await until("login", () => asked.length > 0);
await new Promise((done) => setImmediate(done));
assert.deepEqual(asked, ["/v1/session"]);
document.hidden = false;
document.hears.visibilitychange();
const quiet = () => open === 0 && ids.trouble?.hidden && !ids.main.hidden;
await until("figures", quiet);
assert.match(ids.events.textContent, /daemon tap child ready/);
assert.match(ids.budgets.textContent, /\$0\.00 \+ unpriced/);
assert.equal(ids.coverage.textContent, "everything was metered");

// A late answer of another range is not shown, and the buttons stay.
const buttons = ids.ranges.children;
const [, week, month] = buttons;
let release;
held = new Promise((done) => { release = done; });
month.hears.click();
await until("question", () => open > 0);
week.hears.click();
await until("week", () => ids["by-project"].textContent.includes("since 7 days"));
release();
held = null;
await until("rest", () => open === 0);
await new Promise((done) => setTimeout(done, 50));
assert.match(ids["by-project"].textContent, /since 7 days/);
assert.equal(ids.ranges.children, buttons);
assert.deepEqual(buttons.map((button) => button.attributes["aria-pressed"]), ["false", "true", "false"]);

// One part that fails takes no other along; what is old says so.
failing.add("/v1/budgets");
week.hears.click();
await until("trouble", () => !ids.trouble.hidden);
assert.match(ids.trouble.textContent, /Not all figures.*What is shown is of/);
assert.match(ids.state.textContent, /^metering/);
assert.deepEqual([ids.main.className, ids.main.hidden], ["stale", false]);
failing.add("/v1/status");
week.hears.click();
await until("no daemon", () => ids.state.textContent === "not known");
assert.match(ids.trouble.textContent, /can't be asked/);
failing.clear();
week.hears.click();
await until("figures again", quiet);
assert.equal(ids.main.className, "");
process.exit(0);
