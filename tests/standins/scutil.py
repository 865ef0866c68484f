"""scutil --proxy: the settings of the primary service, which are the ones in force, and below __SCOPED__ those
of each interface that has a service."""

from standin import Failed


def main(call):
    if call.args != ["--proxy"]:
        raise Failed(64, "usage: scutil")
    services = call.state["network"]
    primary = next((s for s in services if s["on"]), None)
    tree = settings(primary) if primary else {"FTPPassive": 1}
    scoped = {f"en{i}": settings(s) for i, s in enumerate(services, 1) if s["on"]}
    if scoped:
        tree["__SCOPED__"] = scoped
    print("<dictionary> {")
    show(tree, "  ")
    print("}")


def settings(service):
    found = {"FTPPassive": 1}
    for key, name in (("web", "HTTP"), ("secure", "HTTPS"), ("socks", "SOCKS")):
        proxy = service[key]
        if proxy["on"]:
            found |= {f"{name}Enable": 1, f"{name}Port": proxy["port"], f"{name}Proxy": proxy["server"]}
    if service["auto"]["on"]:
        found |= {"ProxyAutoConfigEnable": 1, "ProxyAutoConfigURLString": service["auto"]["url"]}
    if service["bypass"]:
        found["ExceptionsList"] = service["bypass"]
    return found


def show(tree, indent):
    for key in sorted(tree):
        value = tree[key]
        if isinstance(value, dict):
            print(f"{indent}{key} : <dictionary> {{")
            show(value, indent + "  ")
            print(indent + "}")
        elif isinstance(value, list):
            print(f"{indent}{key} : <array> {{")
            for i, item in enumerate(value):
                print(f"{indent}  {i} : {item}")
            print(indent + "}")
        else:
            print(f"{indent}{key} : {value}")


def failure(call):
    return Failed(1, "scutil failed")
