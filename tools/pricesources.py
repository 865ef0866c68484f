"""What the sources of the price book say, each in its own words, brought to one form.

The sources are three PyPI wheels, fetched with pip and only ever read as archives: nothing of them
is installed or imported. genai-prices is the base (dated prices, names, long-context steps, tiers),
litellm's table fills its gaps, model-prices is a third voice for the comparison.
"""

import ast
import datetime
import glob
import json
import os
import re
import subprocess
import sys
import zipfile
from decimal import Decimal

BOOK_DATE = "2026-11-24"
PINS = {"genai-prices": "0.2.3", "litellm": "1.109.1", "model-prices": "0.0.5"}
PUBLISHED = {"genai-prices": "2026-11", "litellm": "2026-11", "model-prices": "2026-10-26"}

# our provider: (genai-prices id, litellm providers, litellm key prefixes, model-prices id)
# A genai-prices id of None: litellm's table alone. Of its region-bound names (`us-east-1/...`) only
# Bedrock's are taken: there the host tells the region.
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

GENAI_RATES = {
    "input_mtok": "in",
    "output_mtok": "out",
    "cache_read_mtok": "cr",
    "cache_audio_read_mtok": "ca",
    "cache_image_read_mtok": "ci",
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
    "cache_read_input_audio_token_cost": "ca",
    "cache_read_input_image_token_cost": "ci",
    "cache_creation_input_token_cost": "w5",
    "input_cost_per_audio_token": "ia",
    "output_cost_per_audio_token": "oa",
    "input_cost_per_image_token": "ii",
    "output_cost_per_image_token": "oi",
}
# What is billed by count, where nothing is billed by token: (mode, key) -> our name.
LITELLM_FEES = {
    ("audio_transcription", "input_cost_per_second"): "audio_seconds",
    ("audio_speech", "input_cost_per_character"): "characters",
    ("ocr", "ocr_cost_per_page"): "pages",
    ("ocr", "annotation_cost_per_page"): "annotated_pages",
    ("rerank", "input_cost_per_query"): "search_units",
    ("search", "input_cost_per_query"): "searches",
}
# The same in genai-prices, by the thousand.
GENAI_FEES = {
    "input_document_kpages": "pages",
    "input_annotated_document_kpages": "annotated_pages",
}
LITELLM_KEY = re.compile(
    "^(" + "|".join(LITELLM_RATES) + ")(_above_1hr|_above_12hr)?"
    r"(?:_above_(\d+)k_tokens)?(?:_(batches|flex|priority|ultrafast|balanced))?$"
)
# Mistral's OCR in others' clouds: our provider -> what stands before the name in litellm's table.
OCR_IN = {"azure": "azure_ai/", "vertex": "vertex_ai/"}
# What an image costs by its quality and size: `azure/hd/1024-x-1792/dall-e-3`.
SIZED = re.compile(r"^(low|medium|high|standard|hd)/(\d+)-x-(\d+)/([^/]+)$")
REGION = re.compile(r"^bedrock/([a-z]+(?:-gov)?-[a-z]+-\d)/([a-z0-9]+\.[^/]+)$")
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


def held(directory):
    """The pinned wheels, from a directory that holds them already."""
    return {name: os.path.join(directory, file) for name in PINS for file in os.listdir(directory)
            if file.startswith(f"{name.replace('-', '_')}-{PINS[name]}-")}


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
    fees = {ours: whole(prices[key] * 10**6)
            for key, ours in GENAI_FEES.items() if prices.get(key) is not None}
    if fees:
        rates["fees"] = fees
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
    for rates in out.values():
        if first(rates.get("in")) and first(rates.get("out")) == 0:
            del rates["out"]  # embeddings: nothing to pay for, not free of charge
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


def litellm_image_fees(provider, litellm):
    """{model: {images_QUALITY_SIZE: nano-dollars for one}}."""
    fees = {}
    for ref, entry in litellm_ids(provider, litellm):
        match = SIZED.match(ref)
        if not match:
            continue
        quality, width, height, model = match.groups()
        pixels = Decimal(entry.get("input_cost_per_pixel") or 0) * int(width) * int(height)
        # The price by the pixel is that by the image, divided and rounded: to a thousandth of a cent.
        price = Decimal(entry.get("input_cost_per_image") or round(pixels, 5))
        if price:
            name = f"images_{quality}_{width}x{height}"
            fees.setdefault(model, {})[name] = whole(price * 10**9)
    return fees


def litellm_regions(litellm):
    """Bedrock's models by region: `us-gov-west-1/anthropic.claude-sonnet-5`."""
    for key, entry in litellm.items():
        match = REGION.match(key)
        if match and entry.get("litellm_provider") in PROVIDERS["bedrock"][1]:
            yield f"{match[1]}/{match[2]}".lower(), entry


def first(rate):
    return rate[0] if isinstance(rate, list) else rate


def litellm_ids(provider, litellm):
    _, owners, prefixes, _ = PROVIDERS[provider]
    for key, entry in litellm.items():
        cloud = OCR_IN.get(provider)
        if cloud and entry.get("mode") == "ocr" and key.startswith(cloud + "mistral-"):
            yield key.removeprefix(cloud).lower(), entry
        if entry.get("litellm_provider") not in owners or key == "sample_spec":
            continue
        ref = key
        for prefix in sorted(prefixes, key=len, reverse=True):
            if prefix and key.startswith(prefix):
                ref = key.removeprefix(prefix)
                break
        yield ref.lower(), entry


def times(rate, factor):
    if isinstance(rate, list):
        return [whole(r * factor) if i % 2 == 0 else r for i, r in enumerate(rate)]
    return whole(rate * factor)


def fast_rates(rates, special):
    """litellm gives Claude's fast mode as a factor."""
    factor = Decimal(special["fast"])
    return {k: times(v, factor) for k, v in rates.items() if k in ("in", "out", "cr", "w5", "w1")}


def in_force(prices, day):
    """The entry of a dated list that holds on `day`, at no particular hour."""
    held = [p for p in prices if p.get("from", "") <= day and "hours" not in p]
    return held[-1] if held else prices[0]


# ---------------------------------------------------------------- what a source says on a day

RATES = ["in", "out", "cr", "w5", "w1", "w12", "ia", "oa", "ii", "oi", "ca", "ci"]


def only_rates(tiers):
    """{tier: rates by token}; the plain tier is ''."""
    kept = {tier or "": {k: rates[k] for k in RATES if k in rates} for tier, rates in tiers.items()}
    return {tier: rates for tier, rates in kept.items() if rates}


def genai_says(model, day):
    standard, variants = genai_model(model)
    tiers = {"": in_force(standard, day)}
    tiers.update({name: in_force(entries, day) for name, entries in variants.items()})
    return only_rates(tiers)


def litellm_says(entry, provider):
    tiers = litellm_rates(entry, provider)
    special = entry.get("provider_specific_entry") or {}
    if "fast" in special and "fast" not in tiers and None in tiers:
        tiers["fast"] = fast_rates(tiers[None], special)
    return only_rates(tiers)


def third_says(kinds, provider, day):
    tiers = {}
    for kind, history in kinds.items():
        held = [h for h in history if (h["start"] or "")[:10] <= day]
        if held and held[-1].get("rates"):
            tiers["" if kind == "standard" else kind] = third_rates(held[-1]["rates"], provider)
    return only_rates(tiers)


def third_rates(rates, provider):
    found = {}
    fields = {"input": "in", "output": "out", "cache_read": "cr", "cache_write": "w5"}
    for theirs, ours in fields.items():
        if rates.get(theirs) is None:
            continue
        flat = [dollars(rates[theirs])]
        for step in sorted(rates.get("tiers", []), key=lambda step: step["above"]):
            if step.get(theirs) is not None:
                # "from 200k on", not "over 200k", as in litellm's table.
                start = step["above"] - (1 if provider == "xai" else 0)
                flat += [start, dollars(step[theirs])]
        found[ours] = flat if len(flat) > 1 else flat[0]
    long_lived = {"anthropic": "w1", "openai": "w12"}.get(provider)
    if long_lived and "w5" in found and rates.get("cache_write_1h_multiple"):
        found[long_lived] = times(found["in"], Decimal(str(rates["cache_write_1h_multiple"])))
    return found


def dollars(value):
    return int(round(Decimal(str(value)) * 10**9))
