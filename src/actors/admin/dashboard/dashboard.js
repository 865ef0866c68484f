// The dashboard. Everything that comes from the wire becomes text (`textContent`), never markup.
const KEY = "halton-meter-key";
const EVERY = 10_000;
const DAY = 86_400_000;
const RANGES = { today: "Today", week: "7 days", month: "30 days" };
const EVENTS = 200;

const by = (id) => document.getElementById(id);
let range = "today";
let stop = new AbortController();
let timer;

/** What is read must be there: a field of another name is a mistake, not nothing. */
function field(object, path) {
  let value = object;
  for (const name of path.split(".")) {
    value = value?.[name];
  }
  if (value === undefined) throw new Error(`the answer has no ${path}`);
  return value;
}

/** Names come from anybody: without controls, and without what turns the text beside them round. */
function harmless(text) {
  return String(text).replace(/[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}

function node(name, text, ...classes) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = harmless(text);
  if (classes.length) made.className = classes.join(" ");
  return made;
}

const count = (n) => (n === null ? "–" : n.toLocaleString("en-US"));

/** Nano-dollars, as the commands show them: four decimals below ten dollars' cents. */
function money(nano) {
  if (nano === null) return "–";
  const dollars = nano / 1e9;
  const digits = nano === 0 || dollars >= 1 ? 2 : dollars >= 0.0001 ? 4 : 9;
  return "$" + dollars.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** Never $0 for what has no price. */
function spent(totals) {
  const said = [];
  if (field(totals, "cost_nanousd") !== null) said.push(money(totals.cost_nanousd));
  if (field(totals, "subscription_nanousd") !== null) said.push(`≈${money(totals.subscription_nanousd)} covered`);
  if (field(totals, "unpriced") > 0) said.push(`${count(totals.unpriced)} unpriced`);
  return said.length ? said.join(" + ") : "–";
}

function input(tokens) {
  const classes = ["input", "cache_read", "cache_write_5m", "cache_write_1h", "cache_write_other"];
  const told = classes.map((name) => field(tokens, name)).filter((n) => n !== null);
  return told.length ? told.reduce((a, b) => a + b, 0) : null;
}

const weight = (totals) => (totals.cost_nanousd ?? 0) + (totals.subscription_nanousd ?? 0);
const clock = (text) => (text === null ? "" : new Date(text).toLocaleTimeString());

/** A table: a caption, titles ("#" in front: a number), rows of texts. A cell { share } is a bar. */
function table(id, caption, titles, rows) {
  const target = by(id);
  const head = node("tr");
  for (const title of titles) {
    const cell = node("th", title.replace(/^#/, ""), ...(title.startsWith("#") ? ["n"] : []));
    cell.scope = "col";
    head.append(cell);
  }
  const body = node("tbody");
  for (const cells of rows) {
    const line = node("tr");
    cells.forEach((cell, i) => {
      if (cell !== null && typeof cell === "object") {
        const bar = node("div");
        bar.style.width = `${Math.round(Math.max(0, Math.min(1, cell.share)) * 100)}%`;
        const holder = node("td", undefined, "bar");
        holder.setAttribute("aria-hidden", "true");
        holder.append(bar);
        line.append(holder);
        return;
      }
      const made = node(i === 0 ? "th" : "td", cell, ...(titles[i].startsWith("#") ? ["n"] : []));
      if (i === 0) made.scope = "row";
      line.append(made);
    });
    body.append(line);
  }
  const top = node("thead");
  top.append(head);
  target.replaceChildren(node("caption", caption), ...(rows.length ? [top, body] : []));
}

function groups(id, caption, report, most) {
  const list = field(report, "groupings")[0];
  const all = list === undefined ? [] : field(list, "groups");
  const widest = Math.max(1, ...all.map(weight));
  const rows = all.slice(0, most).map((group) => [
    field(group, "key") ?? "(unknown)",
    count(field(group, "requests")),
    spent(group),
    { share: weight(group) / widest },
  ]);
  table(id, caption, ["Name", "#Requests", "#Cost", "Share"], rows);
}

function card(title, totals) {
  const made = node("li");
  made.append(
    node("span", title),
    node("strong", spent(totals)),
    node("span", `${count(field(totals, "requests"))} requests, ${count(field(totals, "errors"))} failed`),
    node("span", `${count(input(field(totals, "tokens")))} in, ${count(field(totals, "tokens.output"))} out`),
  );
  return made;
}

function coverage(report) {
  const of = (name) => field(report, `coverage.${name}`);
  const gaps = [
    [of("passed_connections"), "connections passed unmetered"],
    [of("cut_connections"), "connections cut when the daemon died"],
    [of("unfollowed_connections"), "connections lost sight of"],
    [of("lost_connections"), "connections lost"],
    [of("lost_rows"), "metered rows lost"],
  ].filter(([n]) => n > 0);
  const reasons = Object.entries(of("passed_by_reason")).map(([why, n]) => `${harmless(why)} ${count(n)}`);
  const line = by("coverage");
  line.className = gaps.length ? "bad" : "";
  line.textContent = gaps.length
    ? gaps.map(([n, what]) => `${count(n)} ${what}`).join(" · ") + (reasons.length ? ` (${reasons.join(", ")})` : "")
    : `${count(of("metered_requests"))} requests on ${count(of("metered_connections"))} connections: everything was metered`;
}

function requests(answer) {
  const rows = field(answer, "requests").map((row) => [
    clock(field(row, "started_at")),
    field(row, "project") ?? "",
    field(row, "model") ?? field(row, "model_requested") ?? field(row, "path"),
    field(row, "client") ?? "",
    field(row, "status") ?? "",
    count(input(field(row, "tokens"))),
    count(field(row, "tokens.output")),
    cost(row),
    field(row, "duration_ms") === null ? "" : `${(row.duration_ms / 1000).toFixed(1)} s`,
    [field(row, "billing") === "subscription" ? "subscription" : null, field(row, "error_class"), row.completeness === "complete" ? null : field(row, "completeness")].filter(Boolean).join(", "),
  ]);
  const titles = ["Time", "Project", "Model", "Client", "#Status", "#Input", "#Output", "#Cost", "#Took", "Note"];
  table("requests", rows.length ? "" : "None yet.", titles, rows);
}

/** What is not paid, or not known exactly, says so. */
function cost(row) {
  if (field(row, "cost_nanousd") === null) return field(row, "cost_reason") ?? "–";
  const sign = field(row, "billing") === "subscription" ? "≈" : field(row, "cost_estimated") ? "~" : "";
  return sign + money(row.cost_nanousd);
}

/** As `Quota::at`: a limit that has reset is unused, and how it stood before holds no more. */
function standing(quota, now) {
  const resets = field(quota, "resets_at");
  if (resets === null || new Date(resets) > now) return [quota];
  return field(quota, "used_bp") === null ? [] : [{ ...quota, used_bp: 0, status: null, resets_at: null }];
}

/** `account` of a limit is there only if something tells whose it is. */
function limits(quotas, budgets) {
  const now = new Date();
  table("quotas", "What is used of the plans", ["Plan", "Limit", "#Used", "Used", "Resets"],
    field(quotas, "quotas").flatMap((quota) => standing(quota, now)).map((quota) => [
      [field(quota, "provider"), field(quota, "plan"), quota.account].filter(Boolean).join(" "),
      field(quota, "name"),
      field(quota, "used_bp") === null ? field(quota, "status") ?? "–" : `${Math.ceil(quota.used_bp / 100)}%`,
      { share: (quota.used_bp ?? 0) / 10_000 },
      field(quota, "resets_at") === null ? "" : new Date(quota.resets_at).toLocaleString(),
    ]));
  const problem = field(budgets, "problem");
  table("budgets", problem === null ? "Budgets" : `No budgets: ${problem}`, ["Budget", "#Spent", "#Limit", "Used"],
    field(budgets, "budgets").map((budget) => [
      `${field(budget, "name")}, this ${field(budget, "per")}`,
      money(field(budget, "spent_nanousd")),
      `$${field(budget, "limit")}`,
      { share: budget.spent_nanousd / (Number(budget.limit) * 1e9) },
    ]));
}

function state(status) {
  const line = by("state");
  const health = field(status, "health");
  const good = field(health, "status") === "ok";
  const open = status.edge.status?.tunnels?.open;
  line.className = good ? "" : "bad";
  line.textContent = (good ? "metering" : `passing, unmetered: ${harmless(field(health, "reasons").join("; "))}`)
    + (open === undefined ? "" : ` · ${count(open)} connections open`)
    + ` · version ${field(health, "version")} · ${new Date().toLocaleTimeString()}`;
}

function actors(answer) {
  table("actors", "Supervised parts", ["Part", "State", "#Generation", "#Restarts", "Last exit"],
    field(answer, "actors").map((actor) => [
      field(actor, "id"), field(actor, "state"), count(field(actor, "generation")),
      count(field(actor, "restarts")), field(actor, "last_exit") ?? "",
    ]));
}

function event(entry) {
  const what = [field(entry, "process"), entry.child, field(entry, "event").replaceAll("_", " "), entry.cause];
  const list = by("events");
  list.prepend(node("li", `${clock(field(entry, "at"))}  ${what.filter(Boolean).join(" ")}`));
  while (list.childElementCount > EVENTS) list.lastElementChild.remove();
}

async function ask(path, options = {}) {
  const headers = { "x-halton-key": localStorage.getItem(KEY) ?? "" };
  const answer = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options, headers });
  if (answer.status === 401) throw new Denied();
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer;
}

class Denied extends Error {}
const json = async (path) => (await ask(path)).json();

/** Server-sent events by hand: an EventSource can't send the key. */
async function follow(signal) {
  const answer = await ask("/v1/events", { signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
      if (data.length) event(JSON.parse(data.join("\n")));
    }
  }
}

const since = {
  today: () => new Date(new Date().setHours(0, 0, 0, 0)),
  week: () => new Date(Date.now() - 7 * DAY),
  month: () => new Date(Date.now() - 30 * DAY),
};
const stats = (which, group) => json(`/v1/stats?since=${encodeURIComponent(since[which]().toISOString())}&by=${group}`);

async function refresh() {
  const [status, today, week, month, project, model, client, latest, quotas, budgets, parts] = await Promise.all([
    json("/v1/status"), stats("today", "provider"), stats("week", "provider"), stats("month", "day"),
    stats(range, "project"), stats(range, "model"), stats(range, "client"),
    json("/v1/requests?limit=25"), json("/v1/quotas"), json("/v1/budgets"), json("/v1/actors"),
  ]);
  state(status);
  by("cards").replaceChildren(
    card("Today", field(today, "summary")), card("7 days", field(week, "summary")), card("30 days", field(month, "summary")));
  groups("days", "", month, 31);
  groups("by-project", "Projects", project, 12);
  groups("by-model", "Models", model, 12);
  groups("by-client", "Clients", client, 12);
  coverage(project);
  requests(latest);
  limits(quotas, budgets);
  actors(parts);
  by("main").hidden = by("logout").hidden = false;
}

function trouble(error) {
  const line = by("trouble");
  line.hidden = error === null;
  if (error === null) return;
  if (error instanceof Denied) {
    by("main").hidden = by("logout").hidden = true;
    stop.abort();
    line.textContent = "Not logged in, or not any more. Run `halton-meter dashboard`: it opens this page with a login.";
  } else {
    line.textContent = `The daemon can't be asked (${error.message}). Requests go on, at worst unmetered.`;
  }
}

async function turn() {
  clearTimeout(timer);
  try {
    if (!document.hidden) await refresh();
    trouble(null);
  } catch (error) {
    trouble(error);
    if (error instanceof Denied) return;
  }
  timer = setTimeout(turn, EVERY);
}

async function events() {
  const mine = (stop = new AbortController());
  while (!mine.signal.aborted) {
    try {
      await follow(mine.signal);
    } catch (error) {
      if (error instanceof Denied || mine.signal.aborted) return;
    }
    await new Promise((done) => setTimeout(done, 2000));
  }
}

function choose() {
  by("ranges").replaceChildren(...Object.entries(RANGES).map(([name, title]) => {
    const button = node("button", title);
    button.type = "button";
    button.setAttribute("aria-pressed", String(name === range));
    button.addEventListener("click", () => {
      range = name;
      choose();
      turn();
    });
    return button;
  }));
}

/** The code behind the `#` is good once; it leaves the address before anything else. */
async function login() {
  const code = new URLSearchParams(location.hash.slice(1)).get("login");
  if (code === null) return;
  history.replaceState(null, "", location.pathname);
  const answer = await fetch("/v1/session", {
    method: "POST", credentials: "same-origin",
    headers: { "content-type": "application/json" }, body: JSON.stringify({ code }),
  });
  if (!answer.ok) throw new Denied();
  localStorage.setItem(KEY, field(await answer.json(), "key"));
}

async function logout() {
  try {
    await ask("/v1/session", { method: "DELETE" });
  } catch (error) {
    if (!(error instanceof Denied)) return trouble(error);
  }
  localStorage.removeItem(KEY);
  clearTimeout(timer);
  trouble(new Denied());
}

async function start() {
  choose();
  by("logout").addEventListener("click", logout);
  document.addEventListener("visibilitychange", () => document.hidden || by("main").hidden || turn());
  addEventListener("hashchange", () => location.hash.includes("login=") && start_session());
  await start_session();
}

async function start_session() {
  try {
    await login();
  } catch (error) {
    return trouble(error);
  }
  stop.abort();
  await turn();
  if (!by("main").hidden) events();
}

start();
