#!/usr/bin/env python3
"""Make config/prices.json, the price book that the binary carries, and compare its sources.

    tools/pricebook.py            write config/prices.json
    tools/pricebook.py --check    the file is what the pinned sources give, and the sources agree,
                                  or tools/pricebook-explained.json says why they do not

The sources are three PyPI wheels, fetched with pip and only ever read as archives: nothing of them
is installed or imported. genai-prices is the base (dated prices, names, long-context steps, tiers),
litellm's table fills its gaps, model-prices is a third voice for the comparison.

Rates are whole nano-dollars per million tokens. A rate with long-context steps is a list
`[rate, threshold, rate, ...]`; a step holds for the whole request when its input is over the
threshold; null = nobody says what it costs there. A variant entry without `in` and `out` = no price.
"""

import argparse
import ast
import datetime
import glob
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from decimal import Decimal

BOOK_DATE = "2026-11-24"
PINS = {"genai-prices": "0.2.3", "litellm": "1.109.1", "model-prices": "0.0.5"}
PUBLISHED = {"genai-prices": "2026-11", "litellm": "2026-11", "model-prices": "2026-10-26"}
HERE = os.path.dirname(os.path.abspath(__file__))
BOOK = os.path.join(HERE, "..", "config", "prices.json")
EXPLAINED = os.path.join(HERE, "pricebook-explained.json")

# our provider: (genai-prices id, litellm providers, litellm key prefixes, model-prices id)
# A genai-prices id of None: litellm's table alone. Its region-bound names (`us-east-1/...`) are left
# out: the wire does not tell the region in the model's name.
PROVIDERS = {
    "azure": (None, ["azure"], ["azure/"], None),
    "bedrock": (None, ["bedrock", "bedrock_converse"], [""], None),
    "copilot": ("github-copilot", [], [], None),
    "minimax": ("minimax", ["minimax"], ["minimax/"], None),
    "moonshot": ("moonshotai", ["moonshot"], ["moonshot/"], None),
    "vertex": (None, ["vertex_ai-language-models", "vertex_ai-anthropic_models",
                      "vertex_ai-mistral_models", "vertex_ai-llama_models",
                      "vertex_ai-deepseek_models", "vertex_ai-qwen_models",
                      "vertex_ai-embedding-models"], ["", "vertex_ai/"], None),
    "zai": ("zai", ["zai"], ["zai/"], None),
    "anthropic": ("anthropic", ["anthropic"], [""], "anthropic"),
    "cerebras": ("cerebras", ["cerebras"], ["cerebras/"], "cerebras"),
    "cohere": ("cohere", ["cohere_chat", "cohere"], ["", "cohere/"], "cohere"),
    "deepseek": ("deepseek", ["deepseek"], ["deepseek/"], "deepseek"),
    "fireworks": ("fireworks", ["fireworks_ai"], ["fireworks_ai/"], "fireworks"),
    "google": ("google", ["gemini"], ["gemini/"], "google"),
    "groq": ("groq", ["groq"], ["groq/"], "groq"),
    "mistral": ("mistral", ["mistral"], ["mistral/"], "mistral"),
    "openai": ("openai", ["openai"], [""], "openai"),
    "perplexity": ("perplexity", ["perplexity"], ["perplexity/"], "perplexity"),
    "together": ("together", ["together_ai"], ["together_ai/"], "together"),
    "xai": ("x-ai", ["xai"], ["xai/"], "xai"),
}
COMPARED = ["anthropic", "google", "openai", "xai"]

GENAI_RATES = {
    "input_mtok": "in",
    "output_mtok": "out",
    "cache_read_mtok": "cr",
    "cache_write_mtok": "w5",
    "cache_write_5m_mtok": "w5",
    "cache_write_1h_mtok": "w1",
    "input_audio_mtok": "ia",
    "output_audio_mtok": "oa",
    "input_image_mtok": "ii",
    "output_image_mtok": "oi",
    "output_reasoning_mtok": "or",
}
LITELLM_RATES = {
    "input_cost_per_token": "in",
    "output_cost_per_token": "out",
    "cache_read_input_token_cost": "cr",
    "cache_creation_input_token_cost": "w5",
    "input_cost_per_audio_token": "ia",
    "output_cost_per_audio_token": "oa",
    "input_cost_per_image_token": "ii",
    "output_cost_per_image_token": "oi",
}
RATE_ORDER = ["in", "cr", "w5", "w1", "w12", "out", "or", "ia", "ii", "oa", "oi", "ws", "fees", "rq"]
# What is billed by count, where nothing is billed by token: (mode, key) -> our name.
LITELLM_FEES = {
    ("audio_transcription", "input_cost_per_second"): "audio_seconds",
    ("audio_speech", "input_cost_per_character"): "characters",
    ("ocr", "ocr_cost_per_page"): "pages",
    ("rerank", "input_cost_per_query"): "search_units",
}
LITELLM_KEY = re.compile(
    "^(" + "|".join(LITELLM_RATES) + ")(_above_1hr|_above_12hr)?"
    r"(?:_above_(\d+)k_tokens)?(?:_(batches|flex|priority|ultrafast|balanced))?$"
)
SNAPSHOTS = ["-20250514", "-20260601", "@20260601", "-2026-06-01"]


# ---------------------------------------------------------------- reading the sources


def fetch(into):
    wheels = {}
    for name, version in PINS.items():
        got = subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:",
             "-d", into, f"{name}=={version}"],
        )
        if got.returncode:
            print(f"pricebook: {name} {version} cannot be fetched", file=sys.stderr)
            sys.exit(3)
    for name in PINS:
        found = glob.glob(os.path.join(into, name.replace("-", "_") + "-*.whl"))
        if len(found) != 1:
            sys.exit(f"pricebook: expected one wheel of {name} in {into}, found {len(found)}")
        wheels[name] = found[0]
    return wheels


def member(wheel, suffix):
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if n.endswith(suffix)]
        if not names:
            sys.exit(f"pricebook: no {suffix} in {os.path.basename(wheel)}")
        return archive.read(names[0]).decode()


def literal(node):
    """The data in genai-prices' Python source, without running it: calls become dictionaries."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List):
        return [literal(n) for n in node.elts]
    if isinstance(node, ast.Dict):
        return {literal(k): literal(v) for k, v in zip(node.keys, node.values)}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -literal(node.operand)
    if isinstance(node, ast.Attribute):
        return None  # datetime.timezone.utc, the only one there is
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        args = [literal(a) for a in node.args]
        if name == "Decimal":
            return Decimal(args[0])
        if name == "date":
            return datetime.date(*args)
        if name == "time":
            return datetime.time(*args)
        return {"kind": name, **{k.arg: literal(k.value) for k in node.keywords}}
    raise ValueError(f"unexpected {ast.dump(node)[:80]}")


def read_genai(wheel):
    tree = ast.parse(member(wheel, "genai_prices/data.py"))
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and node.target.id == "providers":
            return {p["id"]: p for p in literal(node.value)}
    sys.exit("pricebook: genai-prices has changed its shape")


def read_litellm(wheel):
    return json.loads(
        member(wheel, "model_prices_and_context_window_backup.json"), parse_float=Decimal
    )


# ---------------------------------------------------------------- names


def matches(clause, ref):
    kind = clause["kind"].removeprefix("Clause")
    if kind == "Or":
        return any(matches(c, ref) for c in clause["or_"])
    if kind == "And":
        return all(matches(c, ref) for c in clause["and_"])
    if kind == "Equals":
        return ref == clause["equals"].lower()
    if kind == "StartsWith":
        return ref.startswith(clause["starts_with"].lower())
    if kind == "EndsWith":
        return ref.endswith(clause["ends_with"].lower())
    if kind == "Contains":
        return clause["contains"].lower() in ref
    if kind == "Regex":
        return re.search(clause["regex"], ref) is not None
    raise ValueError(kind)


def literals(clause):
    kind = clause["kind"].removeprefix("Clause")
    if kind in ("Or", "And"):
        for part in clause.get("or_") or clause.get("and_"):
            yield from literals(part)
    elif kind in ("Equals", "StartsWith"):
        yield kind, (clause.get("equals") or clause.get("starts_with")).lower()


def owner(models, ref):
    ref = ref.lower()
    return next((m for m in models if matches(m["match"], ref)), None)


def names_of(models, universe):
    """Every known name of each model under the source's own rules; `*` = dated snapshots too.

    The source's prefixes are evaluated here, on names that exist, rather than carried along: a
    prefix would price tomorrow's model as today's.
    """
    named = {m["id"]: set() for m in models}
    candidates = set(universe) | {model["id"].lower() for model in models}
    for model in models:
        for kind, ref in literals(model["match"]):
            # A prefix is a name too, unless it stops in the middle of one.
            if kind == "Equals" or not re.search(r"[-@.:]$|-20(\d\d)?$|-0$", ref):
                candidates.add(ref)
    for ref in sorted(candidates):
        if " " in ref:
            continue
        model = owner(models, ref)
        if model is not None:
            star = any(owner(models, ref + s) is model for s in SNAPSHOTS)
            named[model["id"]].add(ref + "*" if star else ref)
    for names in named.values():
        # What a starred name covers need not be listed.
        for name in sorted(names):
            bare = name.rstrip("*")
            if any(n.endswith("*") and re.fullmatch(
                    re.escape(n[:-1]) + r"[-@]\d{8}|" + re.escape(n[:-1]) + r"-\d{4}-\d\d-\d\d",
                    bare) for n in names if n != name):
                names.discard(name)
    return named


# ---------------------------------------------------------------- rates


def whole(value):
    if value != int(value):
        sys.exit(f"pricebook: {value} nano-dollars is not a whole number")
    return int(value)


def genai_rate(value):
    nano = Decimal(10) ** 9
    if isinstance(value, dict):
        steps = [whole(value["base"] * nano)]
        for tier in sorted(value["tiers"], key=lambda t: t["start"]):
            steps += [tier["start"], whole(tier["price"] * nano)]
        return steps
    return whole(value * nano)


def genai_rates(prices):
    rates = {}
    for key, ours in GENAI_RATES.items():
        if prices.get(key) is not None:
            rates[ours] = genai_rate(prices[key])
    for key, ours in (("web_searches_kcount", "ws"), ("requests_kcount", "rq")):
        value = prices.get(key)
        if isinstance(value, Decimal):
            rates[ours] = whole(value * 10**6)
    return rates


def genai_when(constraint):
    when = {}
    if constraint is not None:
        if "start_date" in constraint:
            when["from"] = constraint["start_date"].isoformat()
        else:
            start, end = constraint["start_time"], constraint["end_time"]
            when["hours"] = f"{start:%H%M}-{end:%H%M}"
    return when


def variant_name(when):
    if len(when) != 1:
        return None
    key, value = next(iter(when.items()))
    if key not in ("processing", "service_tier", "speed") or value == "default":
        return None
    return value


def genai_model(model):
    prices = model["prices"]
    if isinstance(prices, dict):
        prices = [{"constraint": None, "prices": prices}]
    standard = [{**genai_when(p.get("constraint")), **genai_rates(p["prices"])} for p in prices]
    variants = {}
    for variant in model.get("price_variants") or []:
        name = variant_name(variant["when"])
        rates = genai_rates(variant["prices"])
        if name and rates:
            entry = {**genai_when(variant.get("constraint")), **rates}
            variants.setdefault(name, []).append(entry)
    for entries in variants.values():
        entries.sort(key=lambda e: e.get("from", ""))
    return standard, variants


def litellm_rates(entry, provider):
    """{variant or None: rates} of one litellm entry."""
    found = {}
    for key, value in entry.items():
        match = LITELLM_KEY.match(key)
        if not match or isinstance(value, dict) or value is None:
            continue
        field, hours, threshold, variant = match.groups()
        ours = LITELLM_RATES[field]
        if hours:
            ours = {"_above_1hr": "w1", "_above_12hr": "w12"}[hours]
            if field != "cache_creation_input_token_cost":
                continue
        start = int(threshold) * 1000 if threshold else 0
        if provider == "xai" and start:
            start -= 1  # "from 200k on", not "over 200k"
        variant = "batch" if variant == "batches" else variant
        found.setdefault(variant, {}).setdefault(ours, {})[start] = whole(Decimal(value) * 10**15)
    out = {}
    for variant, rates in found.items():
        out[variant] = {}
        for ours, steps in rates.items():
            if 0 not in steps or (ours == "w5" and steps[0] == 0):
                continue
            flat = [steps[0]]
            for start in sorted(s for s in steps if s):
                flat += [start, steps[start]]
            out[variant][ours] = flat if len(flat) > 1 else flat[0]
    fees = {ours: round(Decimal(entry[key]) * 10**9)
            for (mode, key), ours in LITELLM_FEES.items()
            if entry.get("mode") == mode and entry.get(key) and not entry.get("input_cost_per_token")}
    if fees:
        out.setdefault(None, {})["fees"] = fees
    search = entry.get("search_context_cost_per_query")
    if search and None in out:
        per_query = set(search.values())
        if len(per_query) == 1:
            out[None]["ws"] = whole(Decimal(per_query.pop()) * 10**9)
    return out


def times(rate, factor):
    if isinstance(rate, list):
        return [whole(r * factor) if i % 2 == 0 else r for i, r in enumerate(rate)]
    return whole(rate * factor)


def overlay(model, entry, rates, new):
    """Fills what the base table does not have from litellm's entry for the same model."""
    base = rates.get(None, {})
    current = in_force(model)
    if not new:
        # Only an entry that agrees on the plain rates may speak about the rest.
        agrees = all(first(current.get(k)) == first(base.get(k)) for k in ("in", "out"))
        if not agrees:
            return
        for key in ("w12", "ia", "ii", "oa", "oi", "w1", "ws", "cr", "w5"):
            if key in base and key not in current:
                for price in model["prices"]:
                    price[key] = base[key]
    for variant, extra in rates.items():
        if variant is None or not {"in", "out"} <= extra.keys():
            continue
        known = model.setdefault("variants", {}).get(variant)
        if known is None:
            model["variants"][variant] = undated(model, current, extra)
        else:
            for price in known:
                if first(price.get("in")) == first(extra["in"]):
                    for key in ("w12", "w1", "cr", "w5"):
                        if key in extra and key not in price:
                            price[key] = extra[key]
    special = entry.get("provider_specific_entry") or {}
    if "fast" in special and "fast" not in model.get("variants", {}):
        factor = Decimal(special["fast"])
        fast = {k: times(v, factor) for k, v in current.items()
                if k in ("in", "out", "cr", "w5", "w1")}
        model.setdefault("variants", {})["fast"] = undated(model, current, fast)
    geo = {}
    if "us" in special:
        geo["us"] = whole(Decimal(special["us"]) * 1000)
    for region in ("eu", "us"):
        factor = entry.get(f"regional_processing_uplift_multiplier_{region}")
        if factor is not None:
            geo[region] = whole(Decimal(factor) * 1000)
    if geo:
        model.setdefault("geo", {}).update(geo)


def undated(model, current, extra):
    """A variant of litellm's speaks for the plain rates in force today, for no others."""
    entry = {"from": current["from"]} if "from" in current else {}
    for key, rate in extra.items():
        steps = current.get(key)
        if isinstance(steps, list) and not isinstance(rate, list):
            rate = [rate] + [n for start in steps[1::2] for n in (start, None)]
        entry[key] = rate
    later = [p["from"] for p in model["prices"] if p.get("from", "") > BOOK_DATE]
    return [entry] + [{"from": start} for start in later]


def first(rate):
    return rate[0] if isinstance(rate, list) else rate


# ---------------------------------------------------------------- the book


def litellm_ids(provider, litellm):
    _, owners, prefixes, _ = PROVIDERS[provider]
    for key, entry in litellm.items():
        if entry.get("litellm_provider") not in owners or key == "sample_spec":
            continue
        ref = key
        for prefix in sorted(prefixes, key=len, reverse=True):
            if prefix and key.startswith(prefix):
                ref = key.removeprefix(prefix)
                break
        yield ref.lower(), entry


def weekday_windows(entry):
    """litellm's off-peak windows leave the weekend out of the peak hours; genai-prices has no days."""
    peak = entry.get("off_peak_pricing") or {}
    return any(w.get("weekdays") == [6, 7] for w in peak.get("windows", []))


def build(genai, litellm, third):
    book = []
    for provider, (genai_id, _, _, third_id) in PROVIDERS.items():
        models = genai[genai_id]["models"] if genai_id else []
        if provider == "google":
            models = [m for m in models if not m["id"].startswith("claude")]
        entries = dict(litellm_ids(provider, litellm))
        if genai_id is None:
            entries = {ref: entry for ref, entry in entries.items() if "/" not in ref}
        universe = set(entries) | {m.lower() for m in third["prices"].get(third_id, {})}
        universe |= {a.lower() for a, to in third["aliases"]["models"].items()
                     if third_id and to.startswith(third_id + "/")}
        named = names_of(models, universe)
        ours = {}
        for source in models:
            standard, variants = genai_model(source)
            if not any("in" in p or "out" in p for p in standard):
                continue  # priced by hours, pages or characters, which is not on the wire
            model = {"p": provider, "m": source["id"].lower(), "src": "g", "prices": standard}
            if variants:
                model["variants"] = variants
            names = sorted(named[source["id"]] or {source["id"].lower()})
            if names != [model["m"]]:
                model["names"] = names
            ours[source["id"]] = model
        for ref, entry in sorted(entries.items()):
            rates = litellm_rates(entry, provider)
            base = rates.get(None, {})
            match = owner(models, ref)
            # The base leaves out what is billed by pages or seconds alone.
            left_out = match is not None and match["id"] not in ours and base.get("fees")
            if match is not None and not left_out:
                model = ours.get(match["id"])
                # The model's own entry speaks first; its snapshots can't contradict it.
                if model is not None and rates:
                    overlay(model, entry, rates, new=False)
                    if weekday_windows(entry):
                        for price in model["prices"]:
                            if "hours" in price:
                                price["days"] = "1-5"
            elif first(base.get("in")) or base.get("fees"):
                model = {"p": provider, "m": ref, "src": "l", "prices": [base]}
                overlay(model, entry, rates, new=True)
                ours["litellm " + ref] = model
        book += ours.values()
    book.sort(key=lambda m: (m["p"], m["m"]))
    return book


def ordered(rates):
    keys = [k for k in ("from", "hours", "days") if k in rates]
    keys += [k for k in RATE_ORDER if k in rates]
    return {k: rates[k] for k in keys}


def regional_vertex(model):
    """Claude from Sonnet 4.5 on costs a tenth more at Vertex's regional and multi-regional hosts, as
    Anthropic's page on Vertex says; earlier models don't. The sources have the global price only."""
    if model["p"] != "vertex" or not model["m"].startswith("claude-"):
        return None
    early = re.match(r"claude-(3|[a-z]+-4(-1)?(@|$))", model["m"])
    return {"regional": 1000 if early else 1100}


def render(book):
    lines = []
    for model in book:
        regional = regional_vertex(model)
        if regional:
            model["geo"] = {**model.get("geo", {}), **regional}
        line = {"p": model["p"], "m": model["m"]}
        if "names" in model:
            line["names"] = model["names"]
        line["prices"] = [ordered(p) for p in model["prices"]]
        if model.get("variants"):
            line["variants"] = {k: [ordered(p) for p in v]
                                for k, v in sorted(model["variants"].items())}
        if "geo" in model:
            line["geo"] = dict(sorted(model["geo"].items()))
        if model["src"] != "g":
            line["src"] = model["src"]
        lines.append(json.dumps(line, separators=(",", ":")))
    sources = {n: {"version": v, "published": PUBLISHED[n], "licence": "MIT"}
               for n, v in PINS.items()}
    head = {"schema": 1, "book": BOOK_DATE, "sources": sources}
    text = json.dumps(head, separators=(",", ":"))[:-1]
    return text + ',"models":[\n' + ",\n".join(lines) + "\n]}\n"


# ---------------------------------------------------------------- comparison


def compare(book, litellm, third):
    """(where, ours, theirs) for every plain rate that another source puts differently today."""
    found = []
    fields = {"in": "input", "out": "output", "cr": "cache_read", "w5": "cache_write"}
    by_name = {}
    for model in book:
        for name in model.get("names", [model["m"]]):
            by_name[model["p"], name.rstrip("*")] = model
    for provider in COMPARED:
        for ref, entry in litellm_ids(provider, litellm):
            model = by_name.get((provider, ref))
            if model is None or model["src"] != "g":
                continue
            base = litellm_rates(entry, provider).get(None, {})
            price = in_force(model)
            for key in fields:
                if key in base and key in price and base[key] != price[key]:
                    found.append((f"{provider}/{ref} {key} litellm", price[key], base[key]))
        for ref, kinds in third["prices"].get(PROVIDERS[provider][3], {}).items():
            model = by_name.get((provider, ref.lower()))
            if model is None or "standard" not in kinds:
                continue
            price = in_force(model)
            base = last_rates(kinds["standard"])
            for key, theirs in fields.items():
                value = base.get(theirs)
                if value is None or key not in price:
                    continue
                nano = int(round(Decimal(str(value)) * 10**9))
                if nano != first(price[key]):
                    found.append((f"{provider}/{ref} {key} model-prices", first(price[key]), nano))
    return found


def in_force(model):
    today = BOOK_DATE
    merged = None
    for price in model["prices"]:
        if price.get("from", "") <= today and "hours" not in price:
            merged = price
    return merged or model["prices"][0]


def last_rates(history):
    plain = [h for h in history if "rates" in h and not h.get("threshold")]
    plain = [h for h in plain if (h["start"] or "")[:10] <= BOOK_DATE]
    return plain[-1]["rates"] if plain else {}


def check(book, litellm, third):
    with open(EXPLAINED, encoding="utf-8") as file:
        explained = json.load(file)
    bad = 0
    used = set()
    for where, ours, theirs in compare(book, litellm, third):
        reason = next((k for k in explained if re.fullmatch(k, where)), None)
        if reason is None:
            bad += 1
            print(f"UNEXPLAINED {where}: we have {ours}, they have {theirs}")
        else:
            used.add(reason)
            print(f"explained   {where}: we have {ours}, they have {theirs}: {explained[reason]}")
    for stale in sorted(set(explained) - used):
        bad += 1
        print(f"STALE       {stale}: nothing disagrees there any more")
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--wheels", help="directory that holds the pinned wheels already")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temp:
        if args.wheels:
            wheels = {n: os.path.join(args.wheels, f) for n in PINS
                      for f in os.listdir(args.wheels)
                      if f.startswith(f"{n.replace('-', '_')}-{PINS[n]}-")}
        else:
            wheels = fetch(temp)
        genai = read_genai(wheels["genai-prices"])
        litellm = read_litellm(wheels["litellm"])
        third = json.loads(member(wheels["model-prices"], "snapshot.json"))
    book = build(genai, litellm, third)
    text = render(book)
    if not args.check:
        with open(BOOK, "w", encoding="utf-8") as file:
            file.write(text)
        print(f"{len(book)} models, {len(text)} bytes")
        return
    bad = check(book, litellm, third)
    with open(BOOK, encoding="utf-8") as file:
        if file.read() != text:
            bad += 1
            print("STALE       config/prices.json is not what the sources give: run tools/pricebook.py")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
