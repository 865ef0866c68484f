"""osascript -e LINE … [--] ARGUMENTS: of AppleScript, a `run` handler that shows a notification."""

import getopt
import json
import re

from standin import Failed


def main(call):
    # The real one reads its options with getopt(3): `--` ends them and is no argument.
    options, arguments = getopt.getopt(call.args, "e:il:s:")
    lines = [value for name, value in options if name == "-e"]
    if not lines or lines[0] != "on run argv" or lines[-1] != "end run":
        raise Failed(1, "0:1: syntax error: Expected end of line but found identifier. (-2741)")
    for line in lines[1:-1]:
        item = r"\(item (\d) of argv\)"
        shown = re.fullmatch(f"display notification {item} with title {item}", line)
        if not shown:
            raise Failed(1, f"0:{len(line)}: syntax error: A identifier can’t go after this. (-2740)")
        text, title = (arguments[int(n) - 1 : int(n)] for n in shown.groups())
        if not (text and title):
            raise Failed(1, "execution error: Can’t get item of argv. (-1728)")
        print(json.dumps({"title": title[0], "text": text[0], "left": arguments[2:]}))


def failure(call):
    return Failed(1, "execution error: (-1743)")
