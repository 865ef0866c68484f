"""launchctl as far as it is used: the verbs since macOS 10.11, with their texts and exit codes."""

import os
import plistlib
import signal
import sys

from standin import Failed, really, start_really

IO_ERROR = "Bootstrap failed: 5: Input/output error\nTry re-running the command as root for richer errors."
OWN_DOMAIN = f"gui/{os.getuid()}"


def main(call):
    verb, args = (call.args[0], call.args[1:]) if call.args else ("help", [])
    launchd = call.state["launchd"]
    for label in [label for label, left in launchd["draining"].items() if left <= 0]:
        del launchd["draining"][label]
    for label in launchd["draining"]:
        launchd["draining"][label] -= 1
    verbs = {
        "bootstrap": bootstrap, "bootout": bootout, "kickstart": kickstart, "kill": kill,
        "print": print_, "print-disabled": print_disabled, "list": list_,
        "enable": enable, "disable": enable, "setenv": environment, "unsetenv": environment,
        "getenv": environment, "managername": lambda c, *_: print(context(c)),
        "manageruid": lambda *_: print(os.getuid()),
    }
    if verb in ("load", "unload", "start", "stop", "submit", "remove"):
        # The old verbs end with 0 whatever happened: whoever trusts them is caught here.
        print(f"{verb.title()} failed: 5: Input/output error", file=sys.stderr)
    elif verb in verbs:
        verbs[verb](call, launchd, verb, args)
    else:
        raise Failed(64, f"Unrecognized subcommand: {verb}\nUsage: launchctl <subcommand> ... | help [subcommand]")


def bootstrap(call, launchd, _, args):
    if len(args) != 2:
        raise Failed(64, "Usage: launchctl bootstrap <domain-target> [service-path, service-path2, ...]")
    domain, path = args
    if domain != OWN_DOMAIN or not call.settings["gui"]:
        raise Failed(125, "Bootstrap failed: 125: Domain does not support specified action")
    try:
        if os.stat(path).st_mode & 0o022:
            raise Failed(122, f"{path}: Path had bad ownership/permissions")
        with open(path, "rb") as file:
            plist = plistlib.load(file)
        label = plist["Label"]
    except (OSError, KeyError, ValueError, plistlib.InvalidFileException) as e:
        raise Failed(5, IO_ERROR) from e
    if label in launchd["disabled"] or taken(call, launchd, label):
        raise Failed(5, IO_ERROR)
    job = {"path": path, "plist": plist, "pid": None, "runs": 0, "last": None}
    launchd["loaded"][label] = job
    if call.settings["start"]:
        start_really(call, label, plist)
    elif call.settings["on_demand"]:
        pass
    elif plist.get("RunAtLoad") or plist.get("KeepAlive"):
        spawn(job)


def bootout(call, launchd, _, args):
    if args[:1] == ["--wait"] or len(args) not in (1, 2):
        raise Failed(64, "Unrecognized target specifier.\nUsage: launchctl bootout <domain-target> [service-path, ...] or <service-target>")
    label, missing = args[0].rpartition("/")[2], Failed(3, "Boot-out failed: 3: No such process")
    if len(args) == 2:
        missing = Failed(5, "Boot-out failed: 5: Input/output error")
        label = next((l for l, j in launchd["loaded"].items() if j["path"] == args[1]), None)
    if label in launchd["draining"] or (really(call, label) or {}).get("ending"):
        raise Failed(36, "Boot-out failed: 36: Operation now in progress")
    if label not in launchd["loaded"]:
        raise missing
    del launchd["loaded"][label]
    if call.settings["drain"]:
        launchd["draining"][label] = call.settings["drain"]
    tell(call, label, signal.SIGTERM, ending=True)
    code = call.settings["bootout_code"]
    if code:
        texts = {36: "Operation now in progress", 5: "Input/output error"}
        raise Failed(code, f"Boot-out failed: {code}: {texts[code]}")


def kickstart(call, launchd, _, args):
    label, job = wanted(call, launchd, args[-1] if args else "")
    kill_first = any("k" in a for a in args[:-1])
    if really(call, label):
        tell(call, label, signal.SIGUSR2 if kill_first else signal.SIGUSR1)
    elif kill_first or job["pid"] is None:
        spawn(job)
    if any("p" in a for a in args[:-1]):
        print(job["pid"])


def kill(call, launchd, _, args):
    if len(args) != 2:
        raise Failed(64, "Usage: launchctl kill <signal-number|signal-name> <service-target>")
    label, job = wanted(call, launchd, args[1])
    name = args[0].upper()
    number = int(name) if name.isdigit() else getattr(signal, name if name.startswith("SIG") else "SIG" + name)
    seen = really(call, label)
    pid = seen["pid"] if seen else job["pid"]
    if pid is None:
        raise Failed(3, "Could not signal service: 3: No such process")
    if seen:
        os.kill(pid, number)
    else:
        job["pid"], job["last"] = None, 0


def print_(call, launchd, _, args):
    if args == [OWN_DOMAIN] and call.settings["gui"]:
        print(f"{OWN_DOMAIN} = {{\n\ttype = login\n\thandle = 100005\n}}")
        return
    target = args[0] if args else ""
    label, job = wanted(call, launchd, target, before="Bad request.\n", draining=True)
    seen = really(call, label) or job
    plist = job["plist"]
    running = seen["pid"] is not None
    last = "(never exited)" if seen["last"] is None else {78: "78: EX_CONFIG"}.get(seen["last"], seen["last"])
    state = "running" if running else "spawn scheduled" if plist.get("KeepAlive") is True else "not running"
    if label not in launchd["loaded"]:
        state = "SIGTERMed"
    lines = [
        f"active count = {int(running)}", f"path = {job['path']}", "type = LaunchAgent", f"state = {state}", "",
        f"program = {plist['ProgramArguments'][0]}", "arguments = {",
        *(f"\t{a}" for a in plist["ProgramArguments"]), "}", "",
        "inherited environment = {", *(f"\t{k} => {v}" for k, v in launchd["env"].items()), "}", "",
        f"domain = {OWN_DOMAIN} [100005]", f"minimum runtime = {plist.get('ThrottleInterval', 10)}",
        f"exit timeout = {plist.get('ExitTimeOut', 5)}", f"runs = {seen['runs']}",
        *([f"pid = {seen['pid']}"] if running else []), "immediate reason = speculative",
        f"last exit code = {last}", "", "spawn type = interactive (4)",
        "properties = runatload | inferred program" + (" | needs LWCR update | managed LWCR" if job.get("replaced") else ""),
    ]
    print(f"{target} = {{\n" + "\n".join("\t" + l if l else "" for l in lines) + "\n}")


def print_disabled(call, launchd, _, args):
    print("\n\tdisabled services = {")
    for label in launchd["disabled"]:
        print(f'\t\t"{label}" => disabled')
    print("\t}")


def list_(call, launchd, _, args):
    print("PID\tStatus\tLabel")
    for label, job in launchd["loaded"].items():
        seen = really(call, label) or job
        print(f"{seen['pid'] or '-'}\t{seen['last'] or 0}\t{label}")


def enable(call, launchd, verb, args):
    label = args[0].rpartition("/")[2]
    rest = [l for l in launchd["disabled"] if l != label]
    launchd["disabled"] = rest + [label] if verb == "disable" else rest


def context(call):
    if not call.settings["gui"]:
        return "Background"
    return "Aqua" if call.job else call.settings["context"]


def environment(call, launchd, verb, args):
    launchd = launchd if context(call) == "Aqua" else launchd.setdefault("background", {"env": {}})
    if verb == "setenv" and len(args) == 2:
        launchd["env"][args[0]] = args[1]
    elif verb == "unsetenv" and len(args) == 1:
        launchd["env"].pop(args[0], None)
    elif verb == "getenv" and len(args) == 1:
        if args[0] in launchd["env"]:
            print(launchd["env"][args[0]])
    else:
        raise Failed(64, f"Usage: launchctl {verb} <key> ...")


def wanted(call, launchd, target, before="", draining=False):
    domain, _, label = target.rpartition("/")
    if domain != OWN_DOMAIN or not call.settings["gui"]:
        raise Failed(112, f"Could not find domain for {domain.replace('/', ': ')}")
    job = launchd["loaded"].get(label)
    if job is None and draining and taken(call, launchd, label):
        plist = {"ProgramArguments": ["?"]}
        job = {"path": "?", "plist": plist, "pid": None, "runs": 1, "last": None}
    if job is None:
        raise Failed(113, f'{before}Could not find service "{label}" in domain for user gui: {os.getuid()}')
    return label, job


def taken(call, launchd, label):
    return label in launchd["loaded"] or label in launchd["draining"] or really(call, label) is not None


def spawn(job):
    if job.get("replaced"):
        # The program's file is another one than when the job was loaded.
        job["pid"], job["last"] = None, 78
        return
    job["pid"], job["runs"] = 40_000 + job["runs"] + hash(job["path"]) % 20_000, job["runs"] + 1


def tell(call, label, number, ending=False):
    seen = really(call, label)
    if seen:
        if ending:
            open(os.path.join(call.dir, "jobs", f"{label}.ending"), "w").close()
        os.kill(seen["keeper"], number)


def failure(call):
    name = {"bootout": "Boot-out", "bootstrap": "Bootstrap"}.get(call.args[0], call.args[0])
    return Failed(5, f"{name} failed: 5: Input/output error")
