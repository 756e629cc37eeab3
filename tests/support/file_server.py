"""A server on 127.0.0.1 that serves files, truncates them, never ends, or acts as Google Drive's hosts.

gdown's names of Drive's hosts are fixed. For them the server is an HTTPS proxy, too: it answers CONNECT itself, with a
certificate of its own authority. `HTTPS_PROXY` and `REQUESTS_CA_BUNDLE` lead gdown there.
"""

import contextlib
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import trustme

DRIVE_HOSTS = ("drive.google.com", "docs.google.com", "drive.usercontent.google.com")
# The parts of Drive's pages that gdown reads; the form is on one line, as on Drive.
CONFIRMATION = (
    "<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>"
    '<p class="uc-warning-caption">Google Drive can\'t scan this file for viruses.</p>'
    '<form id="download-form" action="https://drive.usercontent.google.com/download" method="get">'
    '<input type="submit" id="uc-download-link" value="Download anyway"/>'
    '<input type="hidden" name="id" value="{id}"><input type="hidden" name="export" value="download">'
    '<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="1-2-3"></form></body></html>'
)
QUOTA = """<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body><div id="uc-text">
<p class="uc-error-caption">Sorry, you can't view or download this file at this time.</p>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently. Please try again later.</p>
</div></body></html>"""
SIGN_IN = "<!doctype html><html><head><title>Sign in - Google Accounts</title></head><body>Sign in</body></html>"


class FileServer:
    """Serve `files`, by path "/name", or by id on Drive.

    A value is bytes; ("truncated", bytes) ends after half of them; ("page", text) is a web page;
    ("large", bytes) is a file on Drive behind its confirmation page; "endless" never ends.
    """

    def __init__(self, folder):
        self.files, self.requests = {}, []
        authority = trustme.CA()
        self.authority = folder / "authority.pem"
        authority.cert_pem.write_to_path(self.authority)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*DRIVE_HOSTS).configure_cert(self.tls)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def environment(self):
        """Return the environment variables that lead gdown here, for Drive's hosts and for no other."""
        return {
            "HTTPS_PROXY": self.address,
            "https_proxy": self.address,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "REQUESTS_CA_BUNDLE": str(self.authority),
        }

    def close(self):
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()


def _handler_of(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            pass

        def finish(self):
            super().finish()
            self.connection.close()

        def do_CONNECT(self):  # The name is http.server's.
            self.send_response(200)
            self.end_headers()
            self.connection = server.tls.wrap_socket(self.connection, server_side=True)
            self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb")
            self.close_connection = False

        def do_GET(self):
            server.requests.append(f"{self.headers['Host']}{self.path}")
            with contextlib.suppress(OSError):  # The client has closed the connection.
                self.respond()
                self.wfile.flush()

        def respond(self):
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            on_drive = self.headers["Host"] in DRIVE_HOSTS
            kind, content = "file", server.files.get(query.get("id") if on_drive else url.path)
            if content is None:
                return self.send("text/html", b"<html><title>404. Not found</title></html>", status=404)
            if isinstance(content, tuple):
                kind, content = content
            if kind == "page":
                return self.send("text/html; charset=utf-8", content.encode())
            if kind == "large" and query.get("confirm") != "t":
                return self.send("text/html; charset=utf-8", CONFIRMATION.format(id=query["id"]).encode())
            if content == "endless":
                return self.send_without_end()
            disposition = {"Content-Disposition": 'attachment; filename="run.safetensors"'} if on_drive else {}
            return self.send("application/octet-stream", content, truncated=kind == "truncated", **disposition)

        def send(self, content_type, content, *, status=200, truncated=False, **headers):
            self.send_response(status)
            for name, value in {"Content-Type": content_type, "Content-Length": len(content), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if truncated else content)
            self.close_connection = self.close_connection or truncated

        def send_without_end(self):
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            while True:
                self.wfile.write(bytes(1 << 16))

    return Handler
