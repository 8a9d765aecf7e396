"""Hooks of schemathesis for scripts/conformance. They send what the tool generates, with one exception.

Exception: in a request that follows the description, an idempotency key that an earlier request had is replaced by an unused
one. A key stands for one request, and a schema describes one request alone. The tool repeats one key in most requests, and
pm would answer 422 to all of them.

Formats: the tool needs a strategy where a format says more than JSON Schema can.
- `uri`: addresses on public hosts, of which no image is ever fetched, since the run has no worker.
- `binary`: bytes that are an image.
- `search`: texts with a letter or a digit of any script.
- `cursor`: only the server makes cursors. An empty one is the same as none.

Checks: two of the tool's checks are replaced by the same checks with exceptions for rules that no schema can express.
- `accepts_described_requests`, for `positive_data_acceptance`: rules between two values. Each rule looks at the values that
  were sent, and the answer has to name the rule.
- `refuses_other_requests`, for `negative_data_rejection`. A query parameter without a value is the same as none: the field
  for it, `allowEmptyValue`, is deprecated, and utoipa cannot write it. A batch answers 200 and refuses wrong items one by one.
"""

import base64
import sys
import uuid
from decimal import Decimal

IMAGE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)


def problem(response):
    """Returns the problem document of an answer, or an empty one."""
    kind = response.headers.get("content-type", [""])[0]
    return response.json() if kind.startswith("application/problem+json") else {}


def wrong_fields(response):
    return {error.get("field") for error in problem(response).get("errors", [])}


def is_price_range_reversed(response, case):
    """`min_price` is at most `max_price`."""
    query = case.query or {}
    if "min_price" not in query or "max_price" not in query or wrong_fields(response) != {"min_price"}:
        return False
    return Decimal(str(query["min_price"])) > Decimal(str(query["max_price"]))


def is_range_outside(response, case):
    """A byte range lies within the file."""
    return response.status_code == 416 and "Range" in (case.headers or {})


def is_identity_changed(response, case):
    """A patch may repeat the product's id and user, and cannot change them."""
    wrong = wrong_fields(response)
    return case.method == "PATCH" and bool(wrong) and wrong <= {"id", "user_id"} & set(case.body)


def is_described(case):
    return case.meta is not None and case.meta.generation.mode.is_positive


def has_empty_parameter(case):
    return any(value == "" for value in (case.query or {}).values())


def is_item_refused(response, case):
    return case.path == "/products:batch" and response.status_code == 200 and response.json()["failed"] > 0


RULES = (is_price_range_reversed, is_range_outside, is_identity_changed)


def register():
    import schemathesis
    from hypothesis import strategies
    from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

    schemathesis.openapi.format(
        "uri", strategies.from_regex(r"https://[a-z]{3,12}\.example/[a-z0-9]{1,12}\.jpg", fullmatch=True)
    )
    schemathesis.openapi.format("binary", strategies.just(IMAGE))
    schemathesis.openapi.format("cursor", strategies.just(""))
    schemathesis.openapi.format("search", strategies.from_regex(r"[a-zé0-9]{1,12}( [a-z0-9]{1,12})?", fullmatch=True))

    used_keys = set()

    @schemathesis.hook
    def before_call(context, case, kwargs):
        headers = case.headers or {}
        key = headers.get("Idempotency-Key")
        if is_described(case) and key is not None:
            if key in used_keys:
                headers["Idempotency-Key"] = key = uuid.uuid4().hex
            used_keys.add(key)

    @schemathesis.check
    def accepts_described_requests(ctx, response, case):
        if not (is_described(case) and any(rule(response, case) for rule in RULES)):
            return positive_data_acceptance(ctx, response, case)

    @schemathesis.check
    def refuses_other_requests(ctx, response, case):
        is_ignored = response.status_code < 300 and has_empty_parameter(case)
        if not (is_ignored or is_item_refused(response, case)):
            return negative_data_rejection(ctx, response, case)


def remove_queues(url, name, version):
    """Deletes the queues that an installation made: their names end with its id."""
    import json

    import pika

    installation = json.loads(version)["installation_id"]
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        for queue in (f"{name}.{installation}", f"{name}.{installation}.unreadable"):
            connection.channel().queue_delete(queue)


if __name__ == "__main__":
    if sys.argv[1:2] != ["remove-queues"]:
        sys.exit("this module holds hooks of schemathesis; run scripts/conformance")
    remove_queues(*sys.argv[2:])
else:
    register()
