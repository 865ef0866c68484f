"""networksetup as far as it is used. Errors go to stdout, as the real one's do."""

from standin import Failed

STAR = "An asterisk (*) denotes that a network service is disabled."
NOT_ADMIN = "** Error: Command requires admin privileges."
NOT_FOUND = "** Error: Unable to find item in network database."
KINDS = {"webproxy": "web", "securewebproxy": "secure", "socksfirewallproxy": "socks"}


def main(call):
    verb, args = (call.args[0].lstrip("-"), call.args[1:]) if call.args else ("", [])
    services = call.state["network"]
    if call.state.get("unready", 0) > 0:
        call.state["unready"] -= 1
        raise Failed(8, NOT_FOUND, to_stdout=True)
    if verb == "listallnetworkservices":
        print("\n".join([STAR] + [("" if s["on"] else "*") + s["name"] for s in services]))
        return
    if verb == "getcurrentlocation":
        print(call.state.get("location", "Automatic"))
        return
    if verb == "listnetworkserviceorder":
        print(STAR)
        for i, s in enumerate(services, 1):
            print(f"({i if s['on'] else '*'}) {s['name']}\n(Hardware Port: {s['name']}, Device: en{i})\n")
        return
    service = next((s for s in services if args and s["name"] == args[0]), None)
    if service is None:
        name = args[0] if args else ""
        if args and verb != "getautoproxyurl":
            raise Failed(8, NOT_FOUND, to_stdout=True)
        raise Failed(4, f"{name} is not a recognized network service.\n** Error: The parameters were not valid.", to_stdout=True)
    if verb.startswith("get"):
        get(verb[3:], service)
    elif not call.settings["admin"]:
        raise Failed(14, NOT_ADMIN, to_stdout=True)
    else:
        change(verb[3:], service, args[1:])


def get(what, service):
    if what in KINDS:
        proxy = service[KINDS[what]]
        print(f"Enabled: {'Yes' if proxy['on'] else 'No'}\nServer: {proxy['server']}\nPort: {proxy['port']}\n"
              "Authenticated Proxy Enabled: 0")
    elif what == "proxybypassdomains":
        print("\n".join(service["bypass"]) or f"There aren't any bypass domains set on {service['name']}.")
    elif what == "autoproxyurl":
        auto = service["auto"]
        print(f"URL: {auto['url'] or '(null)'}\nEnabled: {'Yes' if auto['on'] else 'No'}")
    else:
        usage()


def change(what, service, args):
    if what in KINDS and len(args) >= 2:
        service[KINDS[what]] = {"on": True, "server": args[0], "port": int(args[1])}
    elif what.endswith("state") and what[:-5] in KINDS and args in (["on"], ["off"]):
        service[KINDS[what[:-5]]]["on"] = args == ["on"]
    elif what == "proxybypassdomains" and args:
        service["bypass"] = [] if args == ["Empty"] else args
    elif what == "autoproxyurl" and len(args) == 1:
        service["auto"] = {"on": True, "url": args[0]}
    elif what == "autoproxystate" and args in (["on"], ["off"]):
        service["auto"]["on"] = args == ["on"]
    else:
        usage()


def usage():
    raise Failed(4, "** Error: The parameters were not valid.", to_stdout=True)


def failure(call):
    return Failed(14, NOT_ADMIN, to_stdout=True)
