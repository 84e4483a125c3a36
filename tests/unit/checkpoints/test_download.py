"""Downloads: whole and right, or nothing under the final name and a remedy. The server is on this machine."""

import hashlib
import http.server
import threading

import pytest
from packed_esm.checkpoints.download import download
from packed_esm.checkpoints.registry import contact_head_url, model_url
from packed_esm.errors import DownloadError
from packed_esm.families import MODELS

CONTENT = b"weights" * 300_000
REDIRECTS = {
    "/moved.pt": "/model.pt",
    "/host.pt": "http://localhost:{port}/model.pt",  # the server is asked as 127.0.0.1
    "/scheme.pt": "ftp://127.0.0.1:{port}/model.pt",
    "/file.pt": "file:///etc/hostname",
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/missing.pt":
            self.send_error(404)
            return
        if self.path in REDIRECTS:
            self.send_response(302)
            self.send_header("Location", REDIRECTS[self.path].format(port=self.server.server_port))
            self.end_headers()
            return
        if self.path.startswith("/unsaid"):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CONTENT)
            return
        if "chunked" in self.path:
            self.send_in_chunks()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2] if self.path == "/short.pt" else CONTENT)

    def send_in_chunks(self):
        self.protocol_version = "HTTP/1.1"
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        for start in range(0, len(CONTENT), 2**20):
            part = CONTENT[start : start + 2**20]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            if self.path == "/cut-chunked.pt":
                return
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def test_a_whole_file_with_the_right_checksum_is_kept(server, tmp_path):
    path = tmp_path / "cache" / "model.pt"
    download(f"{server}/model.pt", path, hashlib.sha256(CONTENT).hexdigest())
    assert path.read_bytes() == CONTENT and [p.name for p in path.parent.iterdir()] == ["model.pt"]


@pytest.mark.parametrize(
    ("name", "sha256", "message"),
    [
        ("short.pt", None, r"received 1050000 of 2100000 bytes"),
        ("model.pt", "0" * 64, r"sha256 is .*, expected 0000"),
        ("missing.pt", None, r"cannot download .*Not Found"),
        ("unsaid.pt", "0" * 64, r"sha256 is .*, expected 0000"),
        ("chunked.pt", "0" * 64, r"sha256 is .*, expected 0000"),
        ("cut-chunked.pt", None, r"cannot download .*IncompleteRead"),
    ],
)
def test_a_short_or_wrong_file_is_not_kept_and_a_good_one_not_overwritten(server, tmp_path, name, sha256, message):
    path = tmp_path / "model.pt"
    path.write_bytes(b"good")
    with pytest.raises(DownloadError, match=message) as error:
        download(f"{server}/{name}", path, sha256)
    assert f"put it at {path}" in str(error.value)
    assert path.read_bytes() == b"good" and [p.name for p in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("name", ["unsaid.pt", "chunked.pt"])
@pytest.mark.parametrize("known", [True, False], ids=["sha256-known", "sha256-unknown"])
def test_a_server_need_not_say_how_long_the_file_is(server, tmp_path, caplog, name, known):
    path = tmp_path / "model.pt"
    download(f"{server}/{name}", path, hashlib.sha256(CONTENT).hexdigest() if known else None)
    assert path.read_bytes() == CONTENT
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == (0 if known else 1) and all(
        "neither the size nor a sha256 of the file is known" in line for line in warned
    )


def test_a_redirect_within_the_host_is_followed(server, tmp_path):
    download(f"{server}/moved.pt", tmp_path / "model.pt", hashlib.sha256(CONTENT).hexdigest())
    assert (tmp_path / "model.pt").read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["host.pt", "scheme.pt", "file.pt"])
def test_a_redirect_to_another_host_or_scheme_is_refused(server, tmp_path, name):
    with pytest.raises(DownloadError, match=r"cannot download .*redirect"):
        download(f"{server}/{name}", tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


def test_without_a_network_the_error_says_which_file_to_put_where(tmp_path):
    with pytest.raises(DownloadError, match=r"cannot download .* by other means and put it at .*model.pt"):
        download("http://127.0.0.1:9/model.pt", tmp_path / "model.pt")


def test_published_checkpoints_come_over_https():
    assert all(model_url(name).startswith("https://") for name, shape in MODELS.items() if not shape.hub_id)
    assert contact_head_url("esm1b_t33_650M_UR50S").startswith("https://")
    with pytest.raises(ValueError, match="there is no contact head for esm1v_t33_650M_UR90S_1"):
        contact_head_url("esm1v_t33_650M_UR90S_1")
