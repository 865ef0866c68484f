"""usage: tls_get.py HOST PORT CA_FILE - a TLS handshake by Python's ssl; prints ok or the reason."""
import socket
import ssl
import sys

host, port, ca_file = sys.argv[1:4]
context = ssl.create_default_context(cafile=ca_file)
try:
    with socket.create_connection(("127.0.0.1", int(port)), timeout=20) as tcp:
        with context.wrap_socket(tcp, server_hostname=host):
            print("ok")
except ssl.SSLError as e:
    print(f"refused: {e}")
