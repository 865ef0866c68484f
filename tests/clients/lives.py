"""usage: lives.py EDGE_PORT BUNDLE - one TLS context for its whole life, as programs have; for each line
that it reads a request through the edge, on a connection of its own. Prints the status or the reason."""
import http.client
import json
import ssl
import sys

port, bundle = sys.argv[1:3]
context = ssl.create_default_context(cafile=bundle)
body = json.dumps(
    {"model": "claude-sonnet-4-5", "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]}
)
headers = {"x-api-key": "dummy-key", "content-type": "application/json"}
print("ready", flush=True)
for _ in sys.stdin:
    try:
        connection = http.client.HTTPSConnection("127.0.0.1", int(port), timeout=60, context=context)
        connection.set_tunnel("api.anthropic.com", 443)
        connection.request("POST", "/v1/messages", body, headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        print(answer.status, flush=True)
    except OSError as e:
        print(repr(e), flush=True)
