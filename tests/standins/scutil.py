"""scutil --proxy: the settings of the primary service, which are the ones in force."""

from standin import Failed


def main(call):
    if call.args != ["--proxy"]:
        raise Failed(64, "usage: scutil")
    primary = next((s for s in call.state["network"] if s["on"]), None)
    lines = {"FTPPassive": 1}
    if primary:
        for key, name in (("web", "HTTP"), ("secure", "HTTPS")):
            proxy = primary[key]
            if proxy["on"]:
                lines |= {f"{name}Enable": 1, f"{name}Port": proxy["port"], f"{name}Proxy": proxy["server"]}
        if primary["auto"]["on"]:
            lines |= {"ProxyAutoConfigEnable": 1, "ProxyAutoConfigURLString": primary["auto"]["url"]}
    print("<dictionary> {")
    if primary and primary["bypass"]:
        print("  ExceptionsList : <array> {")
        for i, domain in enumerate(primary["bypass"]):
            print(f"    {i} : {domain}")
        print("  }")
    for key in sorted(lines):
        print(f"  {key} : {lines[key]}")
    print("}")


def failure(call):
    return Failed(1, "scutil failed")
