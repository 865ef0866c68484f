// The dashboard. Everything that comes from the wire becomes text (`textContent`), never markup.
const KEY = "halton-meter-key";
const EVERY = 10_000;
/** For all the answers of one turn. */
const PATIENCE = 30_000;
const DAY = 86_400_000;
const RANGES = { today: "Today", week: "7 days", month: "30 days" };
const EVENTS = 100;

const by = (id) => document.getElementById(id);
let range = "today";
let timer;
/** The newest turn: what an older one still gets is not shown. */
let turns = 0;
let going = new AbortController();
/** When all figures were read last. */
let read = null;

/** What is read must be there: a field of another name is a mistake, not nothing. */
function field(object, path) {
  let value = object;
  for (const name of path.split(".")) {
    value = value?.[name];
  }
  if (value === undefined) throw new Error(`the answer has no ${path}`);
  return value;
}

function node(name, text, ...classes) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = harmless(String(text));
  if (classes.length) made.className = classes.join(" ");
  return made;
}

/** As the commands' `harmless`: what would turn the text around it, or is no text. */
const harmless = (text) => text.replace(/[\p{Cc}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, "\ufffd");

const count = (n) => (n === null ? "–" : n.toLocaleString("en-US"));
const counted = (n, what) => `${count(n)} ${what}${n === 1 ? "" : "s"}`;

/** As the commands' `money`: cents get four decimals, less than a cent four digits that count. */
function money(nano) {
  if (nano === null) return "–";
  const size = Math.abs(nano);
  const less = () => Math.min(9, Math.max(4, 12 - (String(size).length - 1)));
  const decimals = size === 0 || size >= 1e9 ? 2 : size >= 1e7 ? 4 : less();
  const unit = 10 ** (9 - decimals);
  const [whole, digits] = (Math.floor((size + Math.floor(unit / 2)) / unit) / 10 ** decimals).toFixed(decimals).split(".");
  const fraction = digits.length > 4 ? digits.slice(0, 4) + digits.slice(4).replace(/0+$/, "") : digits;
  return `${nano < 0 ? "-" : ""}$${count(Number(whole))}.${fraction}`;
}

/** As the commands' `spent`: never $0 for what has no price, and never less than that some has none. */
function spent(totals) {
  const said = [];
  const unknown = field(totals, "unpriced") + field(totals, "without_usage");
  if (field(totals, "cost_nanousd") !== null) said.push(money(totals.cost_nanousd));
  if (field(totals, "subscription_nanousd") !== null) said.push(`≈${money(totals.subscription_nanousd)} covered`);
  if (unknown > 0) said.push(`${count(unknown)} unpriced`);
  return said.length ? said.join(" + ") : "–";
}

function input(tokens) {
  const classes = ["input", "cache_read", "cache_write_5m", "cache_write_1h", "cache_write_other"];
  const told = classes.map((name) => field(tokens, name)).filter((n) => n !== null);
  return told.length ? told.reduce((a, b) => a + b, 0) : null;
}

const weight = (totals) => (totals.cost_nanousd ?? 0) + (totals.subscription_nanousd ?? 0);

/** The user's clock, written as the commands write it. */
function when(moment) {
  if (moment === null) return "";
  const at = new Date(moment);
  const two = (n) => String(n).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} `
    + `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** A table: a caption, titles ("#" in front: a number, "=": a bar), rows of texts. A cell { share } is a bar. */
const KINDS = { "#": ["n"], "=": ["bar"] };
function table(id, caption, titles, rows) {
  const target = by(id);
  const head = node("tr");
  for (const title of titles) {
    const cell = node("th", title.replace(/^[#=]/, ""), ...(KINDS[title[0]] ?? []));
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
      const made = node(i === 0 ? "th" : "td", cell, ...(KINDS[titles[i][0]] ?? []));
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
  table(id, caption, ["Name", "#Requests", "#Cost", "=Share"], rows);
}

function card(title, totals) {
  const made = node("li");
  made.append(
    node("span", title),
    node("strong", spent(totals)),
    node("span", `${count(field(totals, "requests"))} requests, ${count(field(totals, "errors"))} failed`),
    ...(field(totals, "estimated") > 0 ? [node("span", `${counted(totals.estimated, "request")} estimated`)] : []),
    node("span", `${count(input(field(totals, "tokens")))} in, ${count(field(totals, "tokens.output"))} out`),
  );
  return made;
}

/** As the commands' `gaps`, word by word: what is missing from the figures. */
function gaps(covered) {
  const of = (name) => field(covered, name);
  const reasons = Object.entries(of("passed_by_reason")).map(([why, n]) => `${why} ${count(n)}`).join(", ");
  const kinds = [
    ["passed_connections", "connection", ` passed through unmetered (${reasons})`],
    ["passed_lines_lost", "record", " lost, each of the beginning or the end of an unmetered connection, as the spool could not be written"],
    ["cut_connections", "connection", " cut when the daemon died"],
    ["unfollowed_connections", "connection", " lost sight of (not all that was asked there is counted)"],
    ["lost_connections", "connection", " lost"],
    ["lost_rows", "metered row", " lost"],
  ].filter(([name]) => of(name) > 0).map(([name, what, how]) => counted(covered[name], what) + how);
  const aside = of("set_aside").map((name) => `a corrupt ledger was set aside as ${name}`);
  const gone = of("ledgers_gone") > 0
    ? [`${counted(covered.ledgers_gone, "ledger")} removed, moved away or replaced (what it held is not counted)`] : [];
  return [...kinds, ...aside, ...gone];
}

function coverage(report) {
  const missing = gaps(field(report, "coverage"));
  const silent = field(report, "summary.without_usage");
  if (silent > 0) missing.push(`${counted(silent, "request")} whose usage was not told`);
  const ahead = field(report, "dated_ahead");
  if (ahead > 0) missing.push(`${counted(ahead, "request")} ${ahead === 1 ? "is" : "are"} dated ahead of the clock`);
  const none = field(report, "summary.requests") === 0;
  const line = by("coverage");
  line.className = missing.length ? "bad" : "";
  const good = none ? "No requests to a model in this range." : "everything was metered";
  line.textContent = missing.length ? harmless(missing.join(" · ")) : good;
}

function requests(answer) {
  const rows = field(answer, "requests").map((row) => [
    when(field(row, "started_at")),
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
  table("quotas", "What is used of the plans", ["Plan", "Limit", "#Used", "=Used", "Resets"],
    field(quotas, "quotas").flatMap((quota) => standing(quota, now)).map((quota) => [
      [field(quota, "provider"), field(quota, "plan"), quota.account].filter(Boolean).join(" "),
      field(quota, "name"),
      field(quota, "used_bp") === null ? field(quota, "status") ?? "–" : `${Math.ceil(quota.used_bp / 100)}%`,
      { share: (quota.used_bp ?? 0) / 10_000 },
      when(field(quota, "resets_at")),
    ]));
  const problem = field(budgets, "problem");
  table("budgets", problem === null ? "Budgets" : `No budgets: ${problem}`, ["Budget", "#Spent", "#Limit", "=Used"],
    field(budgets, "budgets").map((budget) => [
      `${field(budget, "name")}, this ${field(budget, "per")}`,
      money(field(budget, "spent_nanousd")) + (field(budget, "unpriced") > 0 ? " + unpriced" : ""),
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
    + (open === undefined ? "" : ` · ${counted(open, "connection")} open`)
    + ` · version ${field(health, "version")} · ${when(new Date())}`;
}

function actors(answer) {
  table("actors", "Supervised parts", ["Part", "State", "#Generation", "#Restarts", "Last exit"],
    field(answer, "actors").map((actor) => [
      field(actor, "id"), field(actor, "state"), count(field(actor, "generation")),
      count(field(actor, "restarts")), field(actor, "last_exit") ?? "",
    ]));
}

/** The answer is a stream that ends. An EventSource could not send the key. */
function events(text) {
  const entries = text.split("\n").filter((line) => line.startsWith("data: ")).map((line) => JSON.parse(line.slice(6)));
  by("events").replaceChildren(...entries.reverse().map((entry) => {
    const what = [field(entry, "process"), entry.child, field(entry, "event").replaceAll("_", " "), entry.cause];
    return node("li", `${when(field(entry, "at"))}  ${what.filter(Boolean).join(" ")}`);
  }));
}

/** Where the key lies; a browser that keeps nothing for us loses it with the page. */
const kept = {
  key: null,
  get() {
    try { return localStorage.getItem(KEY) ?? this.key; } catch { return this.key; }
  },
  set(key) {
    this.key = key;
    try { key === null ? localStorage.removeItem(KEY) : localStorage.setItem(KEY, key); } catch { /* then for this page only */ }
  },
};

class Denied extends Error {}

async function ask(path, options = {}) {
  const headers = { "x-halton-key": kept.get() ?? "" };
  const signal = AbortSignal.timeout(PATIENCE);
  const answer = await fetch(path, { credentials: "same-origin", cache: "no-store", signal, ...options, headers });
  if (answer.status === 401) throw new Denied();
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer;
}

const since = {
  today: () => new Date(new Date().setHours(0, 0, 0, 0)),
  week: () => new Date(Date.now() - 7 * DAY),
  month: () => new Date(Date.now() - 30 * DAY),
};

/** Reads all and shows what comes; the errors of what did not come. */
async function refresh() {
  const mine = turns;
  const { signal } = going;
  const json = async (path) => (await ask(path, { signal })).json();
  const stats = (which, group) => json(`/v1/stats?since=${encodeURIComponent(since[which]().toISOString())}&by=${group}`);
  const part = async (asked, show) => {
    const answers = await Promise.all(asked);
    if (mine === turns) show(...answers);
  };
  const parts = await Promise.allSettled([
    part([json("/v1/status")], state),
    part([stats("today", "provider"), stats("week", "provider"), stats("month", "day")], (today, week, month) => {
      by("cards").replaceChildren(...[["Today", today], ["7 days", week], ["30 days", month]]
        .map(([title, report]) => card(title, field(report, "summary"))));
      groups("days", "", month, 31);
    }),
    part([stats(range, "project")], (report) => { groups("by-project", "Projects", report, 12); coverage(report); }),
    part([stats(range, "model")], (report) => groups("by-model", "Models", report, 12)),
    part([stats(range, "client")], (report) => groups("by-client", "Clients", report, 12)),
    part([json("/v1/requests?limit=25")], requests),
    part([json("/v1/quotas"), json("/v1/budgets")], limits),
    part([json("/v1/actors")], actors),
    part([ask(`/v1/events?last=${EVENTS}`, { signal }).then((answer) => answer.text())], events),
  ]);
  return parts.map(({ reason }) => reason ?? null);
}

/** What is not as of now says so. */
function trouble(line, stale) {
  by("trouble").hidden = line === null;
  by("trouble").textContent = line === null ? "" : harmless(line);
  by("main").className = stale ? "stale" : "";
}

function denied() {
  by("main").hidden = by("logout").hidden = true;
  by("state").textContent = "";
  trouble("Not logged in, or not any more. Run `halton-meter dashboard`: it opens this page with a login.", false);
}

function judge(errors) {
  const failed = errors.filter((error) => error !== null);
  if (failed.some((error) => error instanceof Denied)) return denied();
  const old = read === null ? "" : ` What is shown is of ${when(read)}.`;
  if (errors[0] !== null) {
    by("state").className = "bad";
    by("state").textContent = "not known";
    return trouble(`The daemon can't be asked (${errors[0].message}). Requests go on, at worst unmetered.${old}`, true);
  }
  by("main").hidden = by("logout").hidden = false;
  if (failed.length) return trouble(`Not all figures can be read (${failed[0].message}).${old}`, true);
  read = new Date();
  trouble(null, false);
}

/** A hidden page asks nothing: a browser has few connections for all of them. */
async function turn() {
  clearTimeout(timer);
  going.abort();
  const mine = ++turns;
  if (document.hidden) return;
  const now = (going = new AbortController());
  const late = setTimeout(() => now.abort(new Error(`no answer within ${PATIENCE / 1000} s`)), PATIENCE);
  const errors = await refresh();
  clearTimeout(late);
  if (mine !== turns) return;
  judge(errors);
  timer = setTimeout(turn, EVERY);
}

function choose() {
  const buttons = Object.entries(RANGES).map(([name, title]) => {
    const button = node("button", title);
    button.type = "button";
    button.addEventListener("click", () => {
      range = name;
      press();
      turn();
    });
    return [name, button];
  });
  const press = () => buttons.forEach(([name, button]) => button.setAttribute("aria-pressed", String(name === range)));
  by("ranges").replaceChildren(...buttons.map(([, button]) => button));
  press();
}

/** The code behind the `#` is good once; it leaves the address before anything else. An old one ends no session. */
async function login() {
  const code = new URLSearchParams(location.hash.slice(1)).get("login");
  if (code === null) return;
  history.replaceState(null, "", location.pathname);
  const answer = await fetch("/v1/session", {
    method: "POST", credentials: "same-origin", signal: AbortSignal.timeout(PATIENCE),
    headers: { "content-type": "application/json" }, body: JSON.stringify({ code }),
  });
  if (answer.ok) kept.set(field(await answer.json(), "key"));
}

async function logout() {
  try {
    await ask("/v1/session", { method: "DELETE" });
  } catch (error) {
    if (!(error instanceof Denied)) return trouble(`Not logged out: the daemon can't be asked (${error.message}).`, true);
  }
  kept.set(null);
  clearTimeout(timer);
  going.abort();
  turns += 1;
  denied();
}

async function enter() {
  // What is wrong shows in the turn, too.
  await login().catch(() => {});
  await turn();
}

async function start() {
  choose();
  by("logout").addEventListener("click", logout);
  document.addEventListener("visibilitychange", turn);
  addEventListener("hashchange", () => location.hash.includes("login=") && enter());
  await enter();
}

start();
