"""Download a published checkpoint."""

import hashlib
import http.client
import logging
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from tqdm import tqdm

from ..errors import DownloadError
from ..system.files import replacing

log = logging.getLogger(__name__)


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follow redirects only within the scheme and host of the address, because other hosts are not trusted."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # noqa: ANN001, ANN202
        if urllib.parse.urlsplit(newurl)[:2] != urllib.parse.urlsplit(req.full_url)[:2]:
            raise urllib.error.URLError(f"refused: it redirects to {newurl}, another host or scheme")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(url: str, path: Path, sha256: str | None = None) -> None:
    """Download `url` to a temporary name, check size and sha256 if they are known, and rename it to `path`.

    A server may omit the size: with chunked transfer (HTTP/1.1) it marks the end in another way.

    Raises:
        DownloadError: no connection, or an incomplete or wrong file; the message says how to get it by other means.
    """
    remedy = f"fetch {url} by other means and put it at {path}"
    digest, received = hashlib.sha256(), 0
    try:
        with urllib.request.build_opener(_SameHost).open(url, timeout=60) as response, replacing(path) as temporary:
            size = response.length  # from Content-Length; None without it
            bar = tqdm(total=size, unit="B", unit_scale=True, desc=path.name, mininterval=1)
            with temporary.open("wb") as handle, bar:
                while block := response.read(1 << 20):
                    handle.write(block)
                    digest.update(block)
                    received += len(block)
                    bar.update(len(block))
            if size is not None and received != size:
                raise DownloadError(f"{url}: received {received} of {size} bytes; run again, or {remedy}")
            if sha256 and digest.hexdigest() != sha256:
                raise DownloadError(f"{url}: sha256 is {digest.hexdigest()}, expected {sha256}; {remedy}")
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise DownloadError(f"cannot download {url} ({getattr(error, 'reason', error)}); {remedy}") from error
    if size is None and sha256 is None:
        log.warning("%s: neither the size nor a sha256 of the file is known, so it was not checked", url)
    log.info("%s: %d bytes, sha256 %s", path, received, digest.hexdigest())
