#!/usr/bin/env python3
"""Takes inputs that cover as much as all do into a committed corpus, the small ones first.

usage: tools/fuzz-corpus.py FROM INTO      (FROM: what `-merge=1` made; names of INTO that were given stay)
"""
import pathlib
import sys

MOST, BYTES = 120, 60 * 1024
found, into = map(pathlib.Path, sys.argv[1:])
# Hashes are libFuzzer's names; others were given, by a test that writes them or for what they show.
hashed = [f for f in into.iterdir() if len(f.name) == 40]
given = {f.read_bytes() for f in into.iterdir() if f not in hashed}
for file in hashed:
    file.unlink()
left, room = MOST - len(given), BYTES - sum(map(len, given))
for file in sorted(found.iterdir(), key=lambda f: (f.stat().st_size, f.name)):
    content = file.read_bytes()
    if content in given:
        continue
    if left <= 0 or len(content) > room:
        break
    (into / file.name).write_bytes(content)
    left, room = left - 1, room - len(content)
