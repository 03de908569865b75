# Verifies TIW callbacks: KEYRING=keyring.json SDK_APP_ID=1400000001 PORT=8080 python3 receiver.py
import contextlib, hashlib, hmac, http.server, json, os, pathlib, time

def accepted_keys():
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):  # missing or half-written for a moment
        keys = json.loads(pathlib.Path(os.environ["KEYRING"]).read_bytes())["accept"]
        if isinstance(keys, list) and keys and all(isinstance(key, str) and key for key in keys):
            Receiver.keys = keys
    return Receiver.keys

def genuine(callback, keys):
    app, expire, sign = callback.get("SdkAppId"), callback.get("ExpireTime"), callback.get("Sign")
    signs = (hashlib.md5(f"{key}{expire}".encode()).hexdigest().encode() for key in keys)
    return (type(app) is int and app == int(os.environ["SDK_APP_ID"])  # type(), since True is an instance of int
            and type(expire) is int and int(time.time()) <= expire < 1 << 63
            and isinstance(sign, str) and any(hmac.compare_digest(s, sign.encode()) for s in signs))

class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version, timeout, limit, keys = "HTTP/1.1", 30, 1 << 20, []
    def body(self):  # http.server leaves the framing to us; the "0" and "+" in front let no minus through
        if "Transfer-Encoding" not in self.headers:
            length = min(int("0" + self.headers.get("Content-Length", "")), self.limit + 1)
            return self.rfile.read(length).ljust(length, b"\0")  # if it broke off, it is no JSON then
        body = bytearray()
        while len(body) <= self.limit and (size := int(b"+" + self.rfile.readline(20), 16)):
            body += self.rfile.read(min(size, self.limit + 1) + 2)[:-2]
        return body + self.rfile.readline().strip()

    def do_POST(self):
        try:
            body, keys = self.body(), accepted_keys()
            code = 413 if len(body) > self.limit else 503 if not keys else 200 if genuine(json.loads(body), keys) else 401
        except (ValueError, AttributeError, RecursionError):  # no JSON, no object, no length, no Unicode
            code = 400
        self.send_response(code)
        self.send_header("Content-Length", "16")
        self.send_header("Connection", "close" if code != 200 or self.close_connection else "keep-alive")
        self.end_headers()
        self.wfile.write(b'{"error_code":%d}' % (code != 200))
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Receiver).serve_forever()
