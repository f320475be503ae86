"""Reaching a dask cluster: nothing of an archive crosses a network in clear, and no answer is one line."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from medssl.errors import UserError

if TYPE_CHECKING:
    from distributed import Client

CONNECT = "30s"  # time for the scheduler to answer


def connect(address: str, error: type[UserError]) -> Client:
    """A client of the scheduler at `address`, such as tls://head:8786.

    TLS is required unless the scheduler is on this machine; dask takes its certificates from its own configuration
    (distributed.comm.tls).

    Raises:
        error: dask is not installed, the address is not allowed, or nobody answers.
    """
    try:
        from distributed import Client, Security
    except ImportError as problem:
        raise error("--scheduler: needs dask; install it with: pip install 'medssl[cluster]'") from problem
    encrypted = address.startswith("tls://")
    if not encrypted and not is_loopback(address):
        raise error(
            f"--scheduler {address}: images and keys would cross the network unprotected; use tls:// with dask's distributed.comm.tls"
        )
    try:
        security = Security(require_encryption=True) if encrypted else None
        return Client(address, timeout=CONNECT, security=security, set_as_default=False, direct_to_workers=False)
    except (OSError, TypeError, ValueError, RuntimeError) as problem:
        raise error(f"--scheduler {address}: no answer ({type(problem).__name__}); start it, or mend the address") from problem


def is_loopback(address: str) -> bool:
    """Whether a dask address can only be reached from this machine."""
    host = urlsplit(address if "://" in address else f"tcp://{address}").hostname or ""
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
