"""systemctl --user as far as it is used, with a file of units for a manager. What it starts is kept by
the stand-in for launchd (launchd.py): a unit is translated. The edge's socket is open while the edge's
service is up, which is less than the real one gives."""

import os
import shlex
import signal
import time

from standin import Failed, really, start_really

PATIENCE = 60


def main(call):
    args = [a for a in call.args if not a.startswith("--")]
    manager = call.state.setdefault("systemd", {"loaded": {}, "enabled": [], "active": [], "env": {}})
    verbs = {
        "show-environment": lambda: [print(f"{k}={v}") for k, v in manager["env"].items()],
        "set-environment": lambda: manager["env"].update(a.split("=", 1) for a in args[1:]),
        "unset-environment": lambda: [manager["env"].pop(a, None) for a in args[1:]],
        "daemon-reload": lambda: manager.update(loaded=files()),
        "enable": lambda: enable(manager, args[1:]),
        "disable": lambda: disable(manager, args[1:]),
        "start": lambda: [start(call, manager, u) for u in args[1:]],
        "stop": lambda: [stop(call, manager, u) for u in args[1:]],
        "restart": lambda: [(stop(call, manager, u), start(call, manager, u)) for u in args[1:]],
        "try-restart": lambda: [(stop(call, manager, u), start(call, manager, u)) for u in args[1:] if u in manager["active"]],
        "show": lambda: show(call, manager, args[1]),
    }
    if not args or args[0] not in verbs:
        raise Failed(1, f"Unknown command verb {args[:1]}.")
    verbs[args[0]]()


def files():
    found = {}
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.environ["HOME"], ".config")
    runtime = os.environ.get("XDG_RUNTIME_DIR", "/nowhere")
    # What comes later counts.
    units = [os.path.join(above, "systemd/user") for above in (runtime, config)]
    for path in [os.path.join(d, name) for d in units if os.path.isdir(d) for name in os.listdir(d)]:
        if os.path.isfile(path):
            with open(path) as file:
                found[os.path.basename(path)] = file.read()
    return found


def enable(manager, units):
    for unit in units:
        if unit not in files():
            raise Failed(1, f"Failed to enable unit: Unit file {unit} does not exist.")
    manager["enabled"] = sorted({*manager["enabled"], *units})


def disable(manager, units):
    for unit in units:
        if unit not in files():
            raise Failed(1, f"Failed to disable unit: Unit file {unit} does not exist.")
    manager["enabled"] = [u for u in manager["enabled"] if u not in units]


def start(call, manager, unit):
    text = manager["loaded"].get(unit)
    if text is None:
        raise Failed(5, f"Failed to start {unit}: Unit {unit} not found.")
    entries = [line.split("=", 1) for line in text.splitlines() if "=" in line and line[0] not in "#;["]
    values = dict(entries)
    if really(call, unit) or os.path.exists(values.get("ConditionPathExists", "!").lstrip("!") or "/nowhere"):
        return
    for needed in values.get("Requires", "").split():
        start(call, manager, needed)
    manager["active"] = sorted({*manager["active"], unit})
    if "ExecStart" not in values:
        return
    variables = [shlex.split(value)[0].split("=", 1) for key, value in entries if key == "Environment"]
    job = {
        "ProgramArguments": shlex.split(values["ExecStart"].replace("%%", "%")), "KeepAlive": True,
        "EnvironmentVariables": dict(variables), "ExitTimeOut": int(values.get("TimeoutStopSec", 90)),
        "AbandonProcessGroup": values.get("KillMode") == "process",
    }
    for needed in values.get("Requires", "").split():
        listen = next(l for l in manager["loaded"][needed].splitlines() if l.startswith("ListenStream="))
        host, port = listen.split("=")[1].rsplit(":", 1)
        job["Sockets"] = {"proxy": {"SockNodeName": host, "SockServiceName": port}}
    start_really(call, unit, job)


def stop(call, manager, unit):
    if unit not in manager["loaded"] and unit not in manager["active"]:
        raise Failed(5, f"Failed to stop {unit}: Unit {unit} not loaded.")
    manager["active"] = [u for u in manager["active"] if u != unit]
    seen = really(call, unit)
    if seen:
        os.kill(seen["keeper"], signal.SIGTERM)
    end = time.monotonic() + PATIENCE
    while really(call, unit) and time.monotonic() < end:
        time.sleep(0.02)


def show(call, manager, unit):
    there, text, seen = files(), manager["loaded"].get(unit), really(call, unit) or {}
    state = "active" if unit in manager["active"] else "inactive"
    enabled = "enabled" if unit in manager["enabled"] else "disabled" if unit in there else ""
    stale = "yes" if text is not None and there.get(unit) != text else "no"
    known = text is not None or unit in there
    print(f"LoadState={'loaded' if known else 'not-found'}\nActiveState={state}\nUnitFileState={enabled}\n"
          f"MainPID={seen.get('pid') or 0}\nExecMainCode=0\nExecMainStatus=0\nResult=success\nNeedDaemonReload={stale}")


def failure(call):
    return Failed(1, f"Failed to {call.args[1] if len(call.args) > 1 else 'do'}: Connection timed out")
