"""How this machine reaches https: through which HTTP proxy, and which authorities it trusts.

Owns the environment's `HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE` and `SSL_CERT_DIR`. Knows nothing of who connects.
"""

from __future__ import annotations

import ssl
from functools import cache
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import httpx


def read_tunnel(url: str) -> str | None:
    """The URL of the HTTP proxy through which `url` is reached; None where it is reached directly.

    Plain http is always reached directly: a proxy would see all that is sent. https is only tunnelled.
    """
    parts = urlsplit(url)
    proxy = getproxies_environment().get("https")
    if parts.scheme != "https" or not proxy or proxy_bypass(parts.netloc):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


@cache
def authorities() -> ssl.SSLContext:
    """Those of `SSL_CERT_FILE` or `SSL_CERT_DIR`, else certifi's.

    Reading them takes some 20 ms and a MiB or two, so every client of the process shares them.

    Raises:
        OSError: they cannot be read, or there are none.
    """
    return httpx.create_ssl_context()
