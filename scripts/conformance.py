"""Inputs that schemathesis cannot derive from a schema: permitted image URLs, prices with at most four decimals, unused
idempotency keys, and image files."""

import base64
import uuid

import schemathesis
from hypothesis import strategies

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)

schemathesis.openapi.format(
    "uri", strategies.from_regex(r"https://[a-z]{3,12}\.example/[a-z0-9]{1,12}\.jpg", fullmatch=True)
)
schemathesis.openapi.format("search", strategies.from_regex(r"[a-zé0-9]{1,12}( [a-z0-9]{1,12})?", fullmatch=True))
schemathesis.openapi.format("cursor", strategies.just(""))
schemathesis.openapi.format("binary", strategies.just(PICTURE))


def exact(value):
    """Rounds prices to two decimals: a random float seldom has at most four."""
    if isinstance(value, float):
        return round(value, 2)
    if isinstance(value, dict):
        return {name: exact(part) for name, part in value.items()}
    if isinstance(value, list):
        return [exact(part) for part in value]
    return value


@schemathesis.hook
def map_body(context, body):
    return exact(body)


@schemathesis.hook
def map_query(context, query):
    return exact(query)


@schemathesis.hook
def before_call(context, case, kwargs):
    """Applies rules between values that a schema cannot express: ranges are ordered, and a key is used once."""
    query, headers = case.query or {}, case.headers or {}
    try:
        if float(query["min_price"]) > float(query["max_price"]):
            query["min_price"], query["max_price"] = query["max_price"], query["min_price"]
    except (KeyError, TypeError, ValueError):
        pass
    key = headers.get("Idempotency-Key")
    if isinstance(key, str) and 1 <= len(key) <= 255 and key.isascii() and key.isprintable() and " " not in key:
        headers["Idempotency-Key"] = uuid.uuid4().hex
