"""The guard for outgoing connections: decides, at the moment of connecting, whether an address is allowed.

Owns what counts as a public address, and the network backend that resolves once, checks every answer and connects to
exactly what it checked. Does not know HTTP, pictures, settings or links.

Python's `ipaddress` alone is too lax: it calls multicast, 192.88.99.0/24, fec0::/10, 64:ff9b::127.0.0.1 and everything
that IANA has not assigned yet "global", and its tables differ between patch releases. So an address must pass both
`is_global` and the tables below (IANA special-purpose registries, RFC 6890 and its updates).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor

import httpcore

from mj_mcp.errors import ImageUnavailable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Takes a host and port, returns addresses, the best first. Called once per connection."""
Connect = Callable[[str, int, float | None], Awaitable[httpcore.AsyncNetworkStream]]
"""Takes an address (never a name), port and timeout in seconds, returns an open stream."""

ATTEMPT_SECONDS = 4.0
"""Timeout per address, so that one (an unreachable IPv6, say) does not use up the time of the others."""
ATTEMPTS = 4

_REFUSED_V4 = tuple(
    ipaddress.IPv4Network(net)
    for net in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; one cloud keeps its metadata at 100.100.100.200
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a public address that is one cloud's own wire server inside every machine
        "169.254.0.0/16",  # link local, with the metadata services
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; one cloud's metadata is 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved and broadcast
    )
)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that IANA has assigned for the Internet. The rest is local, reserved or unassigned."""
_REFUSED_V6 = tuple(
    ipaddress.IPv6Network(net)
    for net in (
        "2001::/23",  # protocol assignments, with Teredo (2001::/32), ORCHID and benchmarks
        "2001:db8::/32",  # documentation
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Whether this is a public address, also after unwrapping an IPv4 address inside an IPv6 one.

    Mapped, 6to4 and NAT64 (64:ff9b::/96) addresses are judged by the address inside. IPv4-compatible (::/96), Teredo
    and the local NAT64 prefix (64:ff9b:1::/48) are always refused: no picture is served from there.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not any(address in net for net in _REFUSED_V4)
    if address.scope_id is not None:
        return False
    if address in _MAPPED or address in _NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if address in _SIX_TO_FOUR:
        return is_public(ipaddress.IPv4Address((int(address) >> 80) & 0xFFFFFFFF))
    return address in _GLOBAL_UNICAST and address.is_global and not any(address in net for net in _REFUSED_V6)


def is_public_name(host: str) -> bool:
    """Whether a tunnel may be asked for this host: a public address, or a name outside this network.

    `localhost` and single-label names are refused. The tunnel must check what any other name resolves to.
    """
    if address := parse_address(host):
        return is_public(address)
    labels = host.lower().rstrip(".").split(".")
    return len(labels) > 1 and labels[-1] != "localhost"


def parse_address(text: str) -> Address | None:
    """An address as the backend uses it (a mapped one as its IPv4 address), or None if it is not an address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped and address.scope_id is None:
        return address.ipv4_mapped
    return address


def system_resolver(executor: Executor) -> Resolve:
    """The system's resolver on its own threads, so that a slow name server does not block `asyncio.to_thread`."""

    def look_up(host: str, port: int) -> list[str]:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [str(answer[4][0]) for answer in answers]

    async def resolve(host: str, port: int) -> Sequence[str]:
        return await asyncio.get_running_loop().run_in_executor(executor, look_up, host, port)

    return resolve


async def dial(address: str, port: int, timeout: float | None) -> httpcore.AsyncNetworkStream:  # noqa: ASYNC109 - httpcore's own convention
    """Open a TCP connection to an address. It is not resolved again, so the checked address is used."""
    return await httpcore.AnyIOBackend().connect_tcp(address, port, timeout=timeout)


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to public addresses only, and to the configured host at its configured port."""

    def __init__(self, own: tuple[str, int], resolve: Resolve, connect: Connect = dial) -> None:
        self._own = own
        self._resolve = resolve
        self._connect = connect

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        local_address: str | None = None,  # noqa: ARG002 - same
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002 - same
    ) -> httpcore.AsyncNetworkStream:
        """Resolve once, refuse if any answer is not public, connect to what was checked."""
        addresses = await self._checked(host, port)
        seconds = ATTEMPT_SECONDS if timeout is None else min(timeout, ATTEMPT_SECONDS)
        for address in addresses[:ATTEMPTS]:
            try:
                return await self._connect(address, port, seconds)
            except (httpcore.ConnectError, httpcore.ConnectTimeout, OSError):
                continue
        raise ImageUnavailable(f"the picture's host {host} could not be connected to")

    async def _checked(self, host: str, port: int) -> list[str]:
        literal = parse_address(host)
        answers = [host] if literal else await self._answers(host, port)
        addresses = [parse_address(answer) for answer in answers]
        own = (host.lower().rstrip("."), port) == self._own
        if not own and not all(address and is_public(address) for address in addresses):
            raise ImageUnavailable(f"the picture's host {host} leads to an address that is not public")
        checked = list(dict.fromkeys(str(address) for address in addresses if address))
        if not checked:
            raise ImageUnavailable(f"the picture's host {host} could not be resolved")
        return checked

    async def _answers(self, host: str, port: int) -> Sequence[str]:
        try:
            return await self._resolve(host, port)
        except (OSError, UnicodeError):
            raise ImageUnavailable(f"the picture's host {host} could not be resolved") from None

    async def connect_unix_socket(
        self,
        path: str,  # noqa: ARG002 - the signature is httpcore's
        timeout: float | None = None,  # noqa: ARG002, ASYNC109 - same
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002 - same
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: pictures are not fetched from socket files."""
        raise ImageUnavailable("pictures are not fetched from unix sockets")

    async def sleep(self, seconds: float) -> None:
        """Sleep. httpcore needs it between retries; there are none here."""
        await asyncio.sleep(seconds)
