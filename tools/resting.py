"""Writes a linker script that lays the functions of callgrind's profiles beside each other.

resting.py PROGRAM PROCESS.callgrind... > resting.ld

Names are written without the hashes that change with each build. Where many instances of a generic function
share a name, all of them come along; the worst such names come last, or, if only the daemon runs one, not at all.
"""

import bisect
import pathlib
import re
import subprocess
import sys

# Bytes of all that a name stands for, from which on it is a burden.
BURDEN = 12_000

# Where valgrind loads a program that may lie anywhere. It takes `.text` alone for the program's: functions that
# lie beside each other already have an object `???`, and addresses from here on.
LOADED = 0x108000


def functions(program):
    listing = subprocess.run(["nm", "-S", program], capture_output=True, text=True, check=True).stdout
    fields = (line.split() for line in listing.splitlines())
    found = (f for f in fields if len(f) == 4 and f[2] in "tT")
    return sorted((int(address, 16), int(size, 16), name) for address, size, _, name in found)


def pattern(name):
    name = re.sub(r"17h[0-9a-f]{16}E(\.llvm\.\d+)?$", "17h*", name)
    name = re.sub(r"\.llvm\.\d+$", "*", name)
    return re.sub(r"Cs[0-9A-Za-z]{8,13}_", "Cs*_", name)


def executed(profile, program, table):
    """The names of the program's functions that a profile has costs for."""
    starts = [address for address, _, _ in table]
    # Functions of the same code are merged and have one place; its section is named after one of them.
    merged = {}
    for address, _, name in table:
        merged.setdefault(address, []).append(name)
    bases = {program: 0, "???": LOADED}
    objects, base, names = {}, None, set()
    for line in profile.open():
        if m := re.match(r"c?ob=\((\d+)\)(?: (.*))?", line):
            number, path = m.groups()
            if path:
                objects[number] = path
            if line.startswith("ob="):
                base = bases.get(objects.get(number))
        elif base is not None and (m := re.match(r"0x([0-9a-f]+) ", line)):
            address = int(m[1], 16) - base
            start, size, _ = table[bisect.bisect_right(starts, address) - 1]
            if start <= address < start + size:
                names.update(merged[start])
    return names


def main(program, *profiles):
    table = functions(program)
    sizes, instances = {}, {}
    for _, size, name in table:
        name = pattern(name)
        sizes[name] = sizes.get(name, 0) + size
        instances[name] = instances.get(name, 0) + 1
    used = {}
    for path in map(pathlib.Path, profiles):
        for name in executed(path, program, table):
            used.setdefault(pattern(name), set()).add(path.stem)
    burden = {name for name in used if sizes[name] >= BURDEN and instances[name] > 1}
    daemon = {name for name in used if used[name] == {"daemon"}}
    groups = [
        ("the daemon alone", sorted(daemon - burden)),
        ("the others too", sorted(used.keys() - daemon - burden)),
        ("many of one name", sorted(burden - daemon, key=lambda name: (sizes[name], name))),
    ]
    print("/* By tools/resting.sh: what the processes run at rest. Used by build.rs; see docs/adr/0027. */")
    print("SECTIONS\n{\n  .text.resting :\n  {")
    for title, names in groups:
        print(f"    /* {title} */")
        for name in names:
            print(f"    *(.text.{name} .text.unlikely.{name})")
    print("  }\n}\nINSERT BEFORE .text;")


main(*sys.argv[1:])
