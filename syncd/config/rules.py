"""What one value may be: a rule says it in words, and takes a value or refuses it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


def as_toml(value: object) -> str:
    """A value as its owner wrote it, short and on one line."""
    match value:
        case bool():
            return str(value).lower()
        case int() if abs(value) >= 10**40:
            return "a huge number"  # Python itself refuses to print thousands of digits
        case int() | float():
            return repr(value)
        case str():
            text = value if len(value) <= 100 else value[:100] + "…"
            return '"' + repr(text)[1:-1] + '"'
        case list():
            return "an array"
        case dict():
            return "a table"
        case _:
            return str(value)


def hidden(value: object) -> str:
    """Stands for a value that may be a secret, or a secret put in the wrong place."""
    return '"…"' if isinstance(value, str) else as_toml(value)


@dataclass(frozen=True, slots=True)
class Rule(Generic[T]):
    """`allowed` reads on after "must be"; `accept` gives None for what is not allowed."""

    allowed: str
    accept: Callable[[object], T | None]
    from_text: Callable[[str], object] = lambda text: text
    shown: Callable[[object], str] = as_toml


def one_of(*choices: str) -> Rule[str]:
    return Rule(
        allowed="one of " + ", ".join(f'"{choice}"' for choice in choices),
        accept=lambda value: value if isinstance(value, str) and value in choices else None,
    )


def flag() -> Rule[bool]:
    return Rule(
        allowed="true or false",
        accept=lambda value: value if isinstance(value, bool) else None,
        from_text=lambda text: {"true": True, "false": False}.get(text.strip().lower(), text),
    )


def number(unit: str, *, above: float | None = None, least: float = 0, most: float) -> Rule[float]:
    """A finite number; a whole one will do. `above` excludes its own value, `least` includes it."""

    def accept(value: object) -> float | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        enough = value > above if above is not None else value >= least
        return float(value) if enough and value <= most else None

    span = f"above {_bound(above)} and at most" if above is not None else f"from {_bound(least)} to"
    return Rule(f"a number of {unit} {span} {_bound(most)}", accept, _number_from_text)


def whole(unit: str, *, least: int, most: int) -> Rule[int]:
    def accept(value: object) -> int | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return None
        return value if least <= value <= most else None

    return Rule(f"a whole number of {unit} from {least} to {most}", accept, _number_from_text)


def path(*, secret: bool = False, most_bytes: int = 4095) -> Rule[str]:
    """Absolute, because the daemon and its commands start in different folders."""

    def accept(value: object) -> str | None:
        if not isinstance(value, str) or not value.isprintable():
            return None
        right = value.startswith("/") and len(value.encode()) <= most_bytes
        return value if right or not value else None

    return Rule(
        f"an absolute path of at most {most_bytes} bytes, or empty",
        accept,
        shown=hidden if secret else as_toml,
    )


def header_text() -> Rule[str]:
    """Goes into a request header, where a line break would begin another header."""

    def accept(value: object) -> str | None:
        return value if isinstance(value, str) and re.fullmatch("[!-~]{0,255}", value) else None

    return Rule("at most 255 printable ASCII characters without spaces, or empty", accept)


def base_url() -> Rule[str]:
    """The token goes there, so it is encrypted unless it stays on this machine."""

    def accept(value: object) -> str | None:
        if not isinstance(value, str):
            return None
        return value.rstrip("/") if not value or _is_base_url(value) else None

    return Rule(
        "an https:// address without user, query or fragment (http:// only on loopback), or empty",
        accept,
        shown=_without_secrets,
    )


def address() -> Rule[str]:
    def accept(value: object) -> str | None:
        if not isinstance(value, str):
            return None
        return value if not value or split_address(value) else None

    return Rule("IP:PORT or localhost:PORT, like 127.0.0.1:9464 or [::1]:9464, or empty", accept)


def split_address(text: str) -> tuple[str, int] | None:
    """Host and port to listen on, or None where the text is not both."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        return None
    if host == "localhost" and not bracketed:
        return host, int(port)
    return (host, int(port)) if _ip_version(host) == (6 if bracketed else 4) else None


def _bound(limit: float) -> str:
    return f"{limit:.15g}"


_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def _number_from_text(text: str) -> object:
    stripped = text.strip()
    if len(stripped) > 40 or not _NUMBER.fullmatch(stripped):
        return text
    try:
        return int(stripped)
    except ValueError:
        return float(stripped)


def _is_base_url(text: str) -> bool:
    from urllib.parse import urlsplit  # noqa: PLC0415 - only where the key is set

    if not re.fullmatch(r"https?://[!-~]+", text) or re.search(r"[@?#\\]", text):
        return False
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or "%" in host or port == 0:
        return False
    return parts.scheme == "https" or _is_loopback(host)


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or (host.startswith("127.") and _ip_version(host) == 4)


def _ip_version(host: str) -> int | None:
    from ipaddress import ip_address  # noqa: PLC0415 - only where a key holds an address

    try:
        return ip_address(host).version
    except ValueError:
        return None


def _without_secrets(value: object) -> str:
    if not isinstance(value, str):
        return as_toml(value)
    text = re.sub(r"^([a-zA-Z]*:?/*).*@", r"\1…@", value, flags=re.DOTALL)
    return as_toml(re.sub(r"([?#]).*", r"\1…", text, flags=re.DOTALL))
