"""Starts a second nginx with the site's configuration, and prints that nginx's answers.

Runs on the droplet as `python3 -c`.

Standard input is the configuration, rendered for the root directory /ROOT. Arguments are the app, the domain, the size
of a crowd, the number of a page's files, and the paths to request. The output is JSON: the answers while a release
serves, in maintenance, and while no release serves; the client's headers and raw paths that reach the release; the
certificates before and after a renewal, and the answers on one connection during the renewal; the results of a page's
visitor and of a crowd; nginx's logs.
"""

import json
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socket import create_connection
from socketserver import ThreadingUnixStreamServer
from typing import Any

HTTP, HTTPS = 8080, 8443


FORGED = "198.51.100.66"
"""A forged address, which the client sends in each header that only a proxy may send."""
RAW = [
    *("/app/../other", "/other/../app/x", "/app/..;/other", "/app/%2e%2e/other", "/app/..%2fother", "/app/..%5cother"),
    *("//app/x", "/app//x", "/app/a%2fb", "/app/x?next=/../y", "/app/a.b..c"),
]
LARGE_HEADER = 9000


@dataclass(frozen=True)
class Client:
    """The headers that a made-up client sends, and the number of files on the page that the client visits."""

    forges: list[str]
    files: int


class Release(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer with the path, or with the headers of the request."""
        last = self.path.rpartition("/")[2]
        body = json.dumps(dict(self.headers.items())) if last == "headers" else self.path
        self.send_response({"busy": 503, "missing": 404}.get(last, 200))
        self.send_header("Content-Length", str(len(body)))
        if last == "page":
            self.send_header("Content-Security-Policy", "default-src 'self'")
        if last == "large":
            self.send_header("X-Large", "x" * LARGE_HEADER)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Log nothing, because a client of a unix socket has no address."""


class Releases(ThreadingUnixStreamServer):
    """A server that accepts connections in order, as the colour's socket does."""

    request_queue_size = 1024


def main(app: str, domain: str, many: str, files: str, forged: str, *paths: str) -> None:
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)
    config = sys.stdin.read().replace("/ROOT", str(root)).replace("/run/nginx.pid", f"{root}/nginx.pid")
    # Use other ports, because the real nginx keeps running.
    config = re.sub(r"listen \[::\]:(\d+)", lambda port: f"listen [::1]:{8000 + int(port[1])}", config)
    config = re.sub(r"listen (\d+)", lambda port: f"listen 127.0.0.1:{8000 + int(port[1])}", config)
    (root / "nginx.conf").write_text(config)
    for directory in (f"var/lib/{app}", "var/log/nginx"):
        (root / directory).mkdir(parents=True)
    certify(root / f"etc/{app}/tls", domain, "1")
    command = ["nginx", "-c", str(root / "nginx.conf"), "-g", "daemon off;"]
    nginx = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        found = look(root, app, domain, paths, Client(forged.split(","), int(files)))
        found["crowd"] = crowds(domain, int(many))
    finally:
        nginx.terminate()
        complaints = nginx.communicate(timeout=10)[1]
        # The logs are read after the server ends, because a request is logged while its answer is sent.
        logs = {f"{name}_log": (root / f"var/log/nginx/{name}.log").read_text() for name in ("access", "refused")}
        shutil.rmtree(root)
    print(json.dumps({**found, **logs, "complaints": complaints.splitlines()}))


def look(root: Path, app: str, domain: str, paths: tuple[str, ...], client: Client) -> dict[str, Any]:
    var = root / f"var/lib/{app}"
    release = Releases(str(var / "blue.sock"), Release)
    (var / "blue.sock").chmod(0o666)
    threading.Thread(target=release.serve_forever, daemon=True).start()
    (var / "active").symlink_to("blue.sock")
    found: dict[str, Any] = {"served": {path: ask(connect(domain), path) for path in paths}}

    told = ask(connect(domain), "/app/headers", dict.fromkeys(client.forges, FORGED))
    found["headers"] = json.loads(told["body"]) if told["status"] == 200 else None
    found["raw"] = {path: ask(connect(domain), path) for path in RAW}
    found["large"] = ask(connect(domain), "/app/large")["status"]
    found["page"] = [visit(domain, client.files) for _ in range(3)] if client.files else []

    kept = connect(domain)
    before = ask(kept, paths[0])["status"], serial(domain)
    certify(root / f"etc/{app}/tls", domain, "2")
    after = ask(kept, paths[0])["status"], serial(domain)
    found |= {"kept": [before[0], after[0]], "serials": [before[1], after[1]]}

    (var / "maintenance").touch()
    found["maintenance"] = {path: ask(connect(domain), path) for path in paths}
    (var / "maintenance").unlink()
    (var / "active").unlink()
    found["gone"] = {path: ask(connect(domain), f"{path}?token=in-the-query") for path in paths}
    return found


def certify(tls: Path, domain: str, number: str) -> None:
    """Create a certificate that only root and www-data can read, in a new directory.

    Link `current` to the directory.
    """
    folder = tls / number
    folder.mkdir(parents=True)
    key, chain = folder / "privkey.pem", folder / "fullchain.pem"
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]
    what = ["-set_serial", number, "-subj", f"/CN={domain}", "-keyout", str(key), "-out", str(chain)]
    subprocess.run([*request, *what], check=True, capture_output=True)
    for path, mode in ((folder, 0o750), (key, 0o640), (chain, 0o640)):
        shutil.chown(path, "root", "www-data")
        path.chmod(mode)
    (tls / "new").symlink_to(folder)
    (tls / "new").rename(tls / "current")


def connect(domain: str) -> HTTPConnection:
    """Wait until nginx listens, and connect over TLS with any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = HTTPConnection(domain)
    for left in reversed(range(50)):
        try:
            plain = create_connection(("127.0.0.1", HTTPS), timeout=10)
        except ConnectionRefusedError:
            if not left:
                raise
            time.sleep(0.1)
        else:
            connection.sock = context.wrap_socket(plain, server_hostname=domain)
            break
    return connection


def ask(connection: HTTPConnection, path: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    connection.request("GET", path, headers=headers or {})
    answer = connection.getresponse()
    headers = {name.lower(): value for name, value in answer.getheaders()}
    return {"status": answer.status, "body": answer.read().decode(), "headers": headers}


def visit(domain: str, files: int) -> dict[str, int]:
    """Request all files of a page at the same time over one HTTP/2 connection.

    Count the answers and the connections.
    """
    url = f"https://{domain}:{HTTPS}/app/file-[1-{files}]"
    # Send the first request alone, so that the other requests reuse its connection.
    ask_all = ["curl", "-sk", "--http2", "--parallel", "--parallel-max", str(files), "-o", "/dev/null"]
    shown = ["-w", "%{http_version} %{http_code} %{num_connects}\\n", "--resolve", f"{domain}:{HTTPS}:127.0.0.1"]
    lines = subprocess.run([*ask_all, *shown, url], capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
    answers = Counter(line.rpartition(" ")[0] for line in lines)
    return {**answers, "connections": sum(int(line.rpartition(" ")[2]) for line in lines)}


def crowds(domain: str, many: int) -> dict[int, dict[str, int]]:
    return {port: crowd(domain, port, many) for port in (HTTP, HTTPS)} if many else {}


def crowd(domain: str, port: int, many: int) -> dict[str, int]:
    """Count the statuses that clients get before they finish their requests. An empty status means no answer yet."""
    begun = f"POST /app/x HTTP/1.1\r\nHost: {domain}\r\nContent-Length: 9\r\n\r\n".encode()
    members = [connect(domain).sock if port == HTTPS else create_connection(("127.0.0.1", port)) for _ in range(many)]
    for member in members:
        member.sendall(begun)
    time.sleep(0.5)
    said: Counter[str] = Counter()
    for member in members:
        member.settimeout(0)
        try:
            said[member.recv(12).decode()[-3:]] += 1
        except (BlockingIOError, ssl.SSLWantReadError):
            said[""] += 1
    return dict(said)


def serial(domain: str) -> str:
    """Return the serial number of the certificate that a new connection gets."""
    sock = connect(domain).sock
    assert isinstance(sock, ssl.SSLSocket)
    command = ["openssl", "x509", "-inform", "DER", "-noout", "-serial"]
    shown = subprocess.run(command, input=sock.getpeercert(binary_form=True), capture_output=True, check=True)
    return shown.stdout.decode().strip()


main(*sys.argv[1:])
