"""security as far as it is used: a keychain of certificates, the user's trust, and a person who is
asked. Certificates are told by their hashes; nothing in them is read."""

import base64
import hashlib
import re

from standin import Failed

NO_SETTINGS = "SecTrustSettingsRemoveTrustSettings: No Trust Settings were found."
REFUSED = "SecTrustSettingsRemoveTrustSettings: The authorization was denied since no user interaction was possible."
SET = "SecTrustSettingsSetTrustSettings: The authorization was "


def main(call):
    verb, args = (call.args[0], call.args[1:]) if call.args else ("help", [])
    held = call.state["security"]
    if verb == "add-trusted-cert":
        add(call, held, args)
    elif verb == "verify-cert":
        sha256, _ = hashes(args[args.index("-c") + 1])
        if "-l" not in args:
            # What is asked about counts as a leaf, and ours are CAs.
            raise Failed(1, "Cert Verify Result: CSSMERR_APPLETP_INVALID_CA")
        if not held.get(sha256, {}).get("trusted") and sha256 not in call.state["trusted"]:
            raise Failed(1, "Cert Verify Result: CSSMERR_TP_NOT_TRUSTED")
        print("...certificate verification successful.")
    elif verb == "find-certificate" and "-a" in args:
        for sha256, certificate in held.items():
            print(f"SHA-256 hash: {sha256}\nSHA-1 hash: {certificate['sha1']}\nkeychain: \"login.keychain-db\"")
    elif verb == "remove-trusted-cert":
        sha256, _ = hashes(args[-1])
        if not held.get(sha256, {}).get("trusted") and sha256 not in call.state["trusted"]:
            raise Failed(1, NO_SETTINGS)
        if not call.settings["gui"]:
            raise Failed(1, REFUSED)
        if sha256 in held:
            held[sha256]["trusted"] = False
        else:
            call.state["trusted"].remove(sha256)
    elif verb == "delete-certificate" and "-Z" in args:
        wanted = args[args.index("-Z") + 1].upper()
        found = [k for k, c in held.items() if wanted in (k, c["sha1"])]
        if not found:
            raise Failed(1, f'Unable to delete certificate matching "{wanted}"')
        # Its trust settings stay.
        if held.pop(found[0])["trusted"]:
            call.state["trusted"].append(found[0])
    else:
        raise Failed(2, f"Usage: {verb} ...")


def add(call, held, args):
    sha256, sha1 = hashes(args[-1])
    held.setdefault(sha256, {"sha1": sha1, "trusted": False})
    # It lies in the keychain from here on, whatever the person says.
    if not call.settings["gui"]:
        raise Failed(1, SET + "denied since no user interaction was possible.")
    if call.settings["consent"] == "no":
        raise Failed(1, SET + "canceled by the user.")
    if call.settings["consent"] == "yes":
        held[sha256]["trusted"] = True


def hashes(path):
    try:
        text = open(path).read()
    except OSError as e:
        raise Failed(1, f"Error reading file {path}") from e
    pem = re.search(r"-----BEGIN CERTIFICATE-----(.*?)-----END", text, re.S)
    if not pem:
        raise Failed(1, f"Error reading file {path}")
    der = base64.b64decode(pem[1])
    return hashlib.sha256(der).hexdigest().upper(), hashlib.sha1(der).hexdigest().upper()


def failure(call):
    return Failed(1, "errSecInternalComponent")
