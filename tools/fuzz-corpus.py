#!/usr/bin/env python3
"""Takes inputs of a fuzzer's corpus into the committed one, which stays small.

usage: tools/fuzz-corpus.py FROM INTO      (FROM: what `-merge=1` made; names of INTO that were given stay)
"""
import hashlib
import pathlib
import sys

MOST, BYTES = 120, 60 * 1024
found, into = map(pathlib.Path, sys.argv[1:])
# Hashes are libFuzzer's names; others were given, by a test that writes them or for what they show.
hashed = [f for f in into.iterdir() if len(f.name) == 40]
given = {f.read_bytes() for f in into.iterdir() if f not in hashed}
for file in hashed:
    file.unlink()
new = [c for f in found.iterdir() if (c := f.read_bytes()) not in given]
new.sort(key=lambda content: (len(content), content))
left, room = MOST - len(given), BYTES - sum(map(len, given))
# Small and big ones alike, as many as there is room for.
while len(new) > left or sum(map(len, new)) > room:
    del new[::-4]
for content in new:
    (into / hashlib.sha1(content).hexdigest()).write_bytes(content)
