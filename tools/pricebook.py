#!/usr/bin/env python3
"""Make what the binary knows of prices, from the sources that tools/pricesources.py reads.

    tools/pricebook.py            write config/prices.json, the price book, and
                                  config/price-sources.json, what each source says
    tools/pricebook.py --check    both are what the pinned sources give (exit 3: can't be fetched)

Whether the sources agree with each other and with the book is `halton-meter pricing check`'s to say;
config/price-differences.json explains where they do not.

Rates are whole nano-dollars per million tokens. A rate with long-context steps is a list
`[rate, threshold, rate, ...]`; a step holds for the whole request when its input is over the
threshold; null = nobody says what it costs there. A variant entry without `in` and `out` = no price.
"""

import argparse
import copy
import json
import os
import sys
import tempfile
from decimal import Decimal

from pricerules import (CLAUDE_IN, MOVED, RESTATED, RETIRED_STEPS, all_is_audio, by_another_name, by_mantles_name,
                        by_size_of_search, by_the_character, by_the_second, corrected, googles_own, moved, new_claudes, plausible, regional_factors, restated, tool_fees,
                        untold_steps, without_steps)
from pricesources import (PINS, PROVIDERS, PUBLISHED, fast_rates, fetch, first, genai_model, genai_says, held,
                          in_force, litellm_ids, litellm_image_fees, litellm_rates, litellm_regions, litellm_says,
                          member, names_of, owner, read_genai, read_litellm, third_says, whole)

BOOK_DATE = "2026-11-24"
CONFIG = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "config")
BOOK = os.path.join(CONFIG, "prices.json")
SOURCES = os.path.join(CONFIG, "price-sources.json")
COMPARED = ["anthropic", "google", "mistral", "openai", "xai"]
RATE_ORDER = ["in", "cr", "ca", "ci", "w5", "w1", "w12", "out", "or", "ia", "ii", "oa", "oi", "ws",
              "fees", "rq"]


def overlay(model, entry, rates, new):
    """Fills what the base table does not have from litellm's entry for the same model."""
    base = rates.get(None, {})
    current = in_force(model["prices"], BOOK_DATE)
    if not new:
        # Only an entry that agrees on the plain rates may speak about the rest. (Where all output is
        # images, one says so and the other does not.)
        theirs = {"in": first(base.get("in")), "out": first(base.get("out", base.get("oi")))}
        if any(first(current.get(k)) != rate for k, rate in theirs.items()):
            return
        for key in ("w12", "ia", "ii", "oa", "oi", "w1", "ws", "cr", "w5", "ca", "ci"):
            if key in base and key not in current:
                for price in model["prices"]:
                    # What it says of today is no word on what cost more, or less, before.
                    if key == "ws" or all(first(price.get(k)) == first(current.get(k))
                                          for k in theirs):
                        price[key] = base[key]
        if "out" not in base and "oi" in base:
            for price in [p for known in model.get("variants", {}).values() for p in known]:
                if "out" in price:
                    price.setdefault("oi", price["out"])
    for variant, extra in rates.items():
        # What answers with numbers alone has no output to pay for.
        if variant is None or not {"in", "out"} & current.keys() <= extra.keys():
            continue
        known = model.setdefault("variants", {}).get(variant)
        if known is None:
            model["variants"][variant] = undated(model, current, extra)
        else:
            for price in known:
                if first(price.get("in")) == first(extra["in"]):
                    for key in ("in", "out"):
                        if isinstance(current.get(key), list) and price[key] == first(extra[key]):
                            price[key] = extra[key]  # the base forgets the steps of a tier
                    for key in ("w12", "w1", "cr", "w5", "ca", "ci"):
                        if key in extra and key not in price:
                            price[key] = extra[key]
    special = entry.get("provider_specific_entry") or {}
    if "fast" in special and "fast" not in model.get("variants", {}):
        fast = fast_rates(current, special)
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


def fill_from_third(provider, third, models, ours):
    """Models and tiers of which neither of the others says anything. Only for the providers whose
    figures are compared, and only where the plain rates agree."""
    for name, kinds in sorted(third["prices"][PROVIDERS[provider][3]].items()):
        tiers = third_says(kinds, provider, BOOK_DATE)
        plain = tiers.pop("", {})
        if not first(plain.get("in")):
            continue
        ref = name.lower()
        match = owner(models, ref)
        model = ours.get(match["id"]) if match else ours.get("litellm " + ref)
        if model is None:
            if match:
                continue  # not billed by tokens
            model = ours["third " + ref] = {"p": provider, "m": ref, "src": "m", "prices": [plain]}
        current = in_force(model["prices"], BOOK_DATE)
        if any(first(current.get(k)) != first(plain.get(k)) for k in ("in", "out")):
            continue
        fill_gaps(current, plain)
        for tier, rates in tiers.items():
            known = model.get("variants", {}).get(tier)
            if known:
                entry = in_force(known, BOOK_DATE)
                fill_gaps(entry, {k: r for k, r in rates.items() if k != "cr"})
            elif {"in", "out"} <= rates.keys():
                # It halves everything in a batch; the pages of these two halve no cache reads.
                if provider in ("google", "openai"):
                    rates = {k: rates[k] for k in ("in", "out")}
                model.setdefault("variants", {})[tier] = undated(model, current, rates)


def fill_gaps(entry, rates):
    """Cache rates that `entry` lacks, of one whose input costs the same."""
    same = entry.get("in") == rates.get("in")
    flat = first(entry.get("in")) == rates.get("in")
    for key in ("cr", "w5", "w1", "w12"):
        if key in entry or not first(rates.get(key)):
            continue
        if same:
            entry[key] = rates[key]
        elif flat and key == "w12":
            entry[key] = stepped(rates[key], entry["in"])


def stepped(rate, like):
    """A flat rate beside one with steps: over them, nobody says."""
    return [rate] + [n for start in like[1::2] for n in (start, None)]


def undated(model, current, extra):
    """A variant of another source's speaks for the plain rates in force today, for no others."""
    entry = {"from": current["from"]} if "from" in current else {}
    for key, rate in extra.items():
        steps = current.get(key)
        if isinstance(steps, list) and not isinstance(rate, list):
            rate = stepped(rate, steps)
        entry[key] = rate
    later = [p["from"] for p in model["prices"] if p.get("from", "") > BOOK_DATE]
    return [entry] + [{"from": start} for start in later]


# ---------------------------------------------------------------- the book

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
            if not any({"in", "out", "fees"} & p.keys() for p in standard):
                continue  # priced by what is not on the wire, or by what litellm alone has in our words
            model = {"p": provider, "m": source["id"].lower(), "src": "g", "prices": standard}
            # What is billed by count has one price here.
            variants = {k: v for k, v in variants.items() if any({"in", "out"} & e.keys() for e in v)}
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
                                price["not_on"] = "cn"
            elif first(base.get("in")) or base.get("fees"):
                model = {"p": provider, "m": ref, "src": "l", "prices": [base]}
                overlay(model, entry, rates, new=True)
                ours["litellm " + ref] = model
        if provider in COMPARED:
            fill_from_third(provider, third, models, ours)
        for name, fees in litellm_image_fees(provider, litellm).items():
            by_image(provider, name, fees, ours)
        by_the_second(provider, entries, ours)
        by_size_of_search(provider, litellm, ours)
        by_the_character(provider, litellm, ours)
        searching_apart(entries, ours)
        for name, model, day in MOVED.get(provider, []):
            moved(ours, name, model, day)
        for name, day in RESTATED.get(provider, []):
            restated(provider, name, day, litellm, ours)
        for name, day in RETIRED_STEPS.get(provider, []):
            without_steps(next(m for m in ours.values() if m["m"] == name), day)
        if provider in CLAUDE_IN:
            source, maker = CLAUDE_IN[provider]
            new_claudes(provider, genai[source]["models"], maker, ours)
        if provider in ("google", "vertex"):
            googles_own(provider, litellm, ours)
        book += ours.values()
    book += regional_bedrock(litellm)
    by_mantles_name(book, litellm)
    plausible(book)
    book.sort(key=lambda m: (m["p"], m["m"]))
    return book


def by_image(provider, name, fees, ours):
    """What one image costs, for answers that tell no tokens."""
    known = [m for m in ours.values() if name in [n.rstrip("*") for n in m.get("names", [m["m"]])]]
    if known and provider == "azure":
        return  # by the pixel, at odds with its own price by the token
    if not known:
        known = [{"p": provider, "m": name, "src": "l", "prices": [{}]}]
        ours["litellm image " + name] = known[0]
    for price in known[0]["prices"]:
        price["fees"] = {**fees, **price.get("fees", {})}


def searching_apart(entries, ours):
    """The base has a model that always searches under the name of one that never does, and with the
    fee of that one's tool; OpenAI's page has another fee for it, as litellm says."""
    for key, model in list(ours.items()):
        apart = [n for n in model.get("names", []) if "-search-" in n and "-search-" not in model["m"]]
        rates = [litellm_rates(entries[n], model["p"]) for n in apart if n in entries]
        fees = {r[None]["ws"] for r in rates if "ws" in r.get(None, {})}
        if len(fees) != 1:
            continue
        model["names"] = [n for n in model["names"] if n not in apart]
        searching = copy.deepcopy({k: v for k, v in model.items() if k != "names"})
        searching.update(m=min(apart, key=len), names=apart)
        for price in searching["prices"]:
            price["ws"] = max(fees)
        if model["names"] == [model["m"]]:
            del model["names"]
        ours[f"{key} searching"] = searching


def regional_bedrock(litellm):
    """Bedrock's prices in a region. Regions where a model costs the same share a line."""
    together = {}
    for ref, entry in litellm_regions(litellm):
        rates = litellm_rates(entry, "bedrock")
        if first(rates.get(None, {}).get("in")):
            same = repr([ref.split("/")[1], rates])
            together.setdefault(same, []).append((ref, entry, rates))
    for found in together.values():
        refs = sorted(ref for ref, _, _ in found)
        _, entry, rates = found[0]
        model = {"p": "bedrock", "m": refs[0], "src": "l", "prices": [rates[None]]}
        if len(refs) > 1:
            model["names"] = refs
        overlay(model, entry, rates, new=True)
        yield model


def ordered(rates):
    keys = [k for k in ("from", "hours", "days", "not_on") if k in rates]
    keys += [k for k in RATE_ORDER if k in rates]
    return {k: rates[k] for k in keys}


def calendars(third):
    """Public holidays, on which DeepSeek's peak prices do not hold."""
    return {name: {"ahead": days["utc_offset_hours"], "until": days["covers_through"],
                   "dates": days["dates"]}
            for name, days in sorted(third["schedules"]["holidays"].items())}


def render(book, holidays):
    lines = []
    for model in book:
        by_another_name(model)
        tool_fees(model)
        all_is_audio(model)
        if model["p"] == "openai":
            untold_steps(model)
        regional = regional_factors(model)
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
    head = {"schema": 1, "book": BOOK_DATE, "sources": sources, "holidays": holidays}
    text = json.dumps(head, separators=(",", ":"))[:-1]
    return text + ',"models":[\n' + ",\n".join(lines) + "\n]}\n"


# ---------------------------------------------------------------- what each source says


def says(book, genai, litellm, third):
    """What each source says today of each model of the compared providers, for `pricing check`.

    A name is looked up in each source by that source's own rules; names of which all say the same
    share a line.
    """
    lines = []
    for provider in COMPARED:
        genai_id, _, _, third_id = PROVIDERS[provider]
        models = genai[genai_id]["models"]
        entries = dict(litellm_ids(provider, litellm))
        kept = {ref.lower(): kinds for ref, kinds in third["prices"].get(third_id, {}).items()}
        ours = {m["m"] for m in book if m["p"] == provider}
        together = {}
        for name in sorted(ours | set(entries) | set(kept)):
            match = owner(models, name)
            by = {
                "g": genai_says(match, BOOK_DATE) if match else {},
                "l": litellm_says(entries[name], provider) if name in entries else {},
                "m": third_says(kept[name], provider, BOOK_DATE) if name in kept else {},
            }
            by = {source: tiers for source, tiers in by.items() if tiers}
            if by:
                text = json.dumps(by, separators=(",", ":"), sort_keys=True)
                together.setdefault(text, []).append(name)
        for text, names in sorted(together.items(), key=lambda item: item[1]):
            head = json.dumps({"p": provider, "names": names}, separators=(",", ":"))
            lines.append(f'{head[:-1]},"says":{text}}}')
    head = {"schema": 1, "day": BOOK_DATE, "sources": dict(zip("glm", described()))}
    text = json.dumps(head, separators=(",", ":"))[:-1]
    return text + ',"models":[\n' + ",\n".join(lines) + "\n]}\n"


def described():
    return [f"{name} {PINS[name]} ({PUBLISHED[name]})" for name in PINS]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, say what is stale")
    parser.add_argument("--wheels", help="directory that holds the pinned wheels already")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temp:
        wheels = held(args.wheels) if args.wheels else fetch(temp)
        genai = read_genai(wheels["genai-prices"])
        litellm = corrected(read_litellm(wheels["litellm"]))
        third = json.loads(member(wheels["model-prices"], "snapshot.json"))
    book = build(genai, litellm, third)
    files = {BOOK: render(book, calendars(third)), SOURCES: says(book, genai, litellm, third)}
    stale = False
    for path, text in files.items():
        if not args.check:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            print(f"{os.path.relpath(path)}: {len(text)} bytes")
            continue
        with open(path, encoding="utf-8") as file:
            if file.read() != text:
                stale = True
                print(f"STALE {os.path.relpath(path)} is not what the sources give: "
                      "run tools/pricebook.py")
    sys.exit(1 if stale else 0)


if __name__ == "__main__":
    main()
