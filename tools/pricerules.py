"""What the sources of prices do not have, have wrong, or have under other names: tools/pricebook.py
puts it in."""

import copy
import re
import sys
from decimal import Decimal

from pricesources import SNAPSHOTS, first, genai_model, in_force, litellm_rates, owner, whole

# Names that have become another model's since a day: provider -> (name, model, day). genai-prices keeps
# them at what they stood for first. mistral-large-latest is dated by model-prices, mistral-medium as
# genai-prices dates mistral-medium-latest; the others by the day from which genai-prices has what they
# stood for as deprecated, since litellm alone says what answers now.
MOVED = {
    "mistral": [
        ("mistral-large-latest", "mistral-large-2512", "2025-12-08"),
        ("mistral-medium", "mistral-medium-3-5", "2026-06-16"),
        ("magistral-medium-latest", "mistral-medium-3-5", "2026-05-22"),
        ("magistral-small-latest", "mistral-small-2603", "2026-04-30"),
    ],
}
# Names of which genai-prices still says what they stood for in 2025, with a night's discount that is gone:
# provider -> (name, the day since which they cost what litellm says).
RESTATED = {"deepseek": [("deepseek-chat", "2025-09-29"), ("deepseek-reasoner", "2025-09-29")]}
# Steps for long context that are gone since a day, because no request may be as long any more: provider ->
# (model, day). genai-prices keeps them for what was asked before, and says so.
RETIRED_STEPS = {"anthropic": [("claude-sonnet-4-5", "2026-04-30")]}
# Clouds whose prices for Claude genai-prices has under another name of a provider: provider -> (its id,
# what stands before the model's name in its names for one). litellm's go before.
CLAUDE_IN = {"bedrock": ("aws", "anthropic."), "vertex": ("google", "")}
# What is wrong in litellm's table: (entry, key) -> what it says, what is right. That model costs 0.10
# dollars per million in its own `oci/` entry, and so do Cohere's other models of that kind.
WRONG = {("embed-multilingual-light-v3.0", "input_cost_per_token"): ("1E-4", "1E-7")}
# Numbers cost little; above this (nano-dollars per million) a source has slipped.
EMBEDDING_MOST = 10 * 10**9
# Names that Bedrock's second endpoint has for models of the first.
MANTLE = {"openai.gpt-oss-120b": "openai.gpt-oss-120b-1:0"}


def moved(ours, name, to, day):
    """Makes `name` a model of its own, that costs what `to` does from `day` on."""
    key, before = next((key, m) for key, m in ours.items()
                       if name in [n.rstrip("*") for n in m.get("names", [])])
    after = next(m for m in ours.values() if m["m"] == to)
    before["names"] = [n for n in before["names"] if n.rstrip("*") != name]
    if not before["names"]:
        del ours[key]
    elif before["names"] == [before["m"]]:
        del before["names"]
    model = copy.deepcopy({k: v for k, v in after.items() if k != "names"})
    now = in_force(model["prices"], day)
    later = [p for p in model["prices"] if p.get("from", "") > day]
    model.update(m=name, prices=[*copy.deepcopy(before["prices"]), {**now, "from": day}, *later])
    ours["moved " + name] = model


def restated(provider, name, day, litellm, ours):
    """Makes `name` a model of its own, that costs what litellm says from `day` on."""
    before = next(m for m in ours.values()
                  if name in [n.rstrip("*") for n in m.get("names", [m["m"]])])
    now = litellm_rates(litellm[f"{provider}/{name}"], provider)[None]
    prices = [*copy.deepcopy(before["prices"]), {"from": day, **now}]
    left = [n for n in before.get("names", []) if n.rstrip("*") != name]
    mine = [n for n in before.get("names", []) if n.rstrip("*") == name]
    if left:
        before.update(m=min(left, key=len).rstrip("*"), names=left)
        ours["restated " + name] = {"p": provider, "m": name, "src": "l", "names": mine, "prices": prices}
    else:
        before.update(src="l", prices=prices)


def untold_steps(model):
    """A tier of OpenAI's that has one rate where the plain price has steps: over them, nobody says."""
    for tier in ("flex", "priority", "fast"):
        for entry in model.get("variants", {}).get(tier, []):
            plain = in_force(model["prices"], entry.get("from", model["prices"][-1].get("from", "")))
            for key, rate in entry.items():
                steps = plain.get(key)
                if isinstance(steps, list) and not isinstance(rate, list):
                    entry[key] = [rate] + [n for start in steps[1::2] for n in (start, None)]


def googles_own(provider, litellm, ours):
    """What litellm alone has of Google's models: what an answer costs that Maps grounded, what video costs
    more than images, and the factor of Vertex's regional hosts."""
    for model in [m for m in ours.values() if not m["m"].startswith("claude-")]:
        names = [n.rstrip("*") for n in model.get("names", [model["m"]])]
        keys = [key for n in names for key in
                ([f"gemini/{n}", n] if provider == "google" else [f"vertex_ai/{n}", n])]
        entries = [litellm[key] for key in keys if key in litellm]
        said = lambda field: next((e[field] for e in entries if e.get(field)), None)
        maps, video = said("google_maps_grounding_cost_per_query"), said("input_cost_per_video_token")
        made = said("output_cost_per_video_token")
        for price in model["prices"]:
            if maps:
                price.setdefault("fees", {})["maps_queries"] = whole(Decimal(maps) * 10**9)
            image = first(price.get("ii"))
            if video and image and Decimal(video) * 10**15 > image:
                more = Decimal(video) * 10**9 - Decimal(image) / 10**6
                price.setdefault("fees", {})["video_tokens"] = whole(more)
            if made and "oi" not in price and first(price.get("out")) != whole(Decimal(made) * 10**15):
                price["oi"] = whole(Decimal(made) * 10**15)
        if provider == "vertex":
            factor = Decimal(said("regional_endpoint_uplift_multiplier") or 1)
            model["geo"] = {**model.get("geo", {}), "regional": whole(factor * 1000)}


def without_steps(model, day):
    """Makes `model` cost, whatever the length, what it does below its steps from `day` on."""
    for prices in [model["prices"], *model.get("variants", {}).values()]:
        before = [p for p in prices if p.get("from", "") < day]
        since = [{k: first(r) for k, r in p.items()} for p in prices[len(before):]]
        if before:
            since.insert(0, {**{k: first(r) for k, r in before[-1].items()}, "from": day})
        prices[:] = before + since


def new_claudes(provider, models, maker, ours):
    """Adds the models of Claude's of which litellm has no price for this cloud, under any name."""
    known = [n.partition("@")[0] for m in ours.values() for n in m.get("names", [m["m"]])]
    for source in models:
        names = [n for n in whole_names(source["match"]) if re.search(f"(^|[.]){maker}claude-", n)]
        bare = tuple(n[n.index(f"{maker}claude-"):] for n in names)
        if not names or any(n.endswith(bare) for n in known):
            continue
        standard, variants = genai_model(source)
        model = {"p": provider, "m": min(names, key=len), "src": "g", "prices": standard}
        if variants:
            model["variants"] = variants
        stars = {n for n in names if any(owner([source], n + s) for s in SNAPSHOTS)}
        if provider == "vertex":
            names += [f"{n}@default" for n in names if owner([source], f"{n}@default")]
        names = sorted(n + "*" if n in stars else n for n in names)
        if names != [model["m"]]:
            model["names"] = names
        ours["genai " + source["id"]] = model


def whole_names(clause):
    """The names of a rule that are whole, but for what may stand before them."""
    kind = clause["kind"].removeprefix("Clause")
    if kind == "Or":
        return [name for part in clause["or_"] for name in whole_names(part)]
    return [v for v in (clause.get("equals"), clause.get("ends_with")) if v]


def corrected(litellm):
    for (name, key), (said, right) in WRONG.items():
        if Decimal(litellm[name][key]) != Decimal(said):
            sys.exit(f"pricebook: {name} is not wrong any more: take it out of WRONG")
        litellm[name][key] = Decimal(right)
    return litellm


def by_mantles_name(book, litellm):
    """Adds them where litellm's table has the same rates under both."""
    for model in [m for m in book if m["p"] == "bedrock"]:
        names = model.get("names", [model["m"]])
        for alias, to in MANTLE.items():
            for region in [n.removesuffix(to) for n in names if n.split("/")[-1] == to]:
                entry = litellm[f"bedrock_mantle/{region}{alias}"]
                theirs = litellm_rates(entry, "bedrock")[None]
                if any(theirs[key] != model["prices"][-1][key] for key in ("in", "out")):
                    sys.exit(f"pricebook: {region}{alias} does not cost what {to} does")
                names = [*names, region + alias]
        if len(names) > 1:
            model["names"] = sorted(names)


def plausible(book):
    for model in book:
        dear = [p for p in model["prices"] if (first(p.get("in")) or 0) > EMBEDDING_MOST]
        if "embed" in model["m"] and dear:
            sys.exit(f"pricebook: {model['p']}/{model['m']} costs more than an embedding can: see WRONG")


def by_another_name(model):
    """OpenAI's `fast` is its `priority`: what is known of the one holds for the other."""
    variants = model.get("variants", {})
    for mine, other in (("fast", "priority"), ("priority", "fast")):
        for entry, twin in zip(variants.get(mine, []), variants.get(other, [])):
            if entry.get("in") == twin.get("in"):
                for key, rate in twin.items():
                    entry.setdefault(key, rate)


def tool_fees(model):
    """A file search is 2.50 dollars per thousand, as OpenAI's page says, and a web search by the preview
    tool of a model that does not reason 25; no source has them."""
    for price in model["prices"] if model["p"] == "openai" else []:
        if "in" in price and "out" in price:
            price.setdefault("fees", {})["file_searches"] = 2_500_000
        if "ws" in price and re.match(r"gpt-4(o|\.1)(?!.*-search-)", model["m"]):
            price.setdefault("fees", {})["preview_searches"] = 25_000_000


def by_size_of_search(provider, litellm, ours):
    """Perplexity's fee for a request depends on how much it searches; genai-prices has the dearest one
    for all, litellm each of them. An answer tells which. What the two say otherwise has no price."""
    for model in ours.values() if provider == "perplexity" else []:
        entry = litellm.get("perplexity/" + model["m"], {})
        fees = {f"requests_{size}": whole(Decimal(fee) * 10**9)
                for size in ("low", "medium", "high")
                if (fee := (entry.get("search_context_cost_per_query") or {}).get(f"search_context_size_{size}"))}
        for price in model["prices"] if len(set(fees.values())) > 1 else []:
            dearest = price.pop("rq", fees["requests_high"])
            agreed = {k: fee for k, fee in fees.items() if k != "requests_high" or fee == dearest}
            price["fees"] = {**price.get("fees", {}), **agreed}


def by_the_character(provider, litellm, ours):
    """Vertex bills its older embeddings of text by the character, which its answers tell. The rate by the token
    that litellm has too is four characters'."""
    for model in [m for m in ours.values() if provider == "vertex" and m["m"].startswith("text")]:
        entry = litellm.get(model["m"], {})
        fee = entry.get("input_cost_per_character")
        for price in model["prices"] if fee and entry.get("mode") == "embedding" else []:
            price["fees"] = {**price.get("fees", {}), "characters": whole(Decimal(fee) * 10**9)}


# What a second of a video costs by its size, as OpenAI's page says which: litellm's name -> (model, sizes).
# Of others than these no source says it.
VIDEOS = {
    "sora-2": ("sora-2", ["720x1280", "1280x720"]),
    "sora-2-pro": ("sora-2-pro", ["720x1280", "1280x720"]),
    "sora-2-pro-high-res": ("sora-2-pro", ["1024x1792", "1792x1024"]),
}


def by_the_second(provider, entries, ours):
    for name, (model, sizes) in VIDEOS.items():
        fee = entries.get(name, {}).get("output_cost_per_video_per_second")
        if fee is None:
            continue
        made = ours.setdefault("video " + model, {"p": provider, "m": model, "src": "l", "prices": [{"fees": {}}]})
        made["prices"][0]["fees"].update(
            {f"video_seconds_{size}": whole(Decimal(fee) * 10**9) for size in sizes})


def all_is_audio(model):
    """What a model of OpenAI's that speaks puts out is audio; where a source has one rate, it is for that."""
    for price in model["prices"] if model["p"] == "openai" and "-tts" in model["m"] else []:
        if "out" in price:
            price.setdefault("oa", price["out"])


def regional_factors(model):
    """Of hosts that stand for a region; the sources have the global price only. Mistral's cost a tenth
    more for every token, as its page on regional inference says. So does Claude from Sonnet 4.5 on at
    Vertex's regional and multi-regional hosts, as Anthropic's page on Vertex says; earlier models don't.
    With `inference_geo: us` it does from 4.6 on, as its page on data residency says; litellm has that
    too, but not for all."""
    if model["p"] == "mistral":
        return {"eu": 1100, "us": 1100}
    if model["p"] == "anthropic":
        return None if re.match(r"claude-(v?\d|[a-z]+-4-[0-5]$)", model["m"]) else {"us": 1100}
    if model["p"] != "vertex" or not model["m"].startswith("claude-"):
        return None
    early = re.match(r"claude-(3|[a-z]+-4(-1)?(@|$))", model["m"])
    return {"regional": 1000 if early else 1100}
