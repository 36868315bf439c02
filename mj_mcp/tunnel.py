"""The HTTP proxy that the environment names for https.

Owns `HTTPS_PROXY` and `NO_PROXY`, in either case of letters. Knows nothing of who connects, or to what.
"""

from __future__ import annotations

from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass


def read_tunnel(url: str) -> str | None:
    """The URL of the HTTP proxy through which `url` is reached; None where it is reached directly.

    Plain http is always reached directly: a proxy would see all that is sent. https is only tunnelled.
    """
    parts = urlsplit(url)
    proxy = getproxies_environment().get("https")
    if parts.scheme != "https" or not proxy or proxy_bypass(parts.netloc):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
