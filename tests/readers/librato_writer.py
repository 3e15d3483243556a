"""Writes with the official Librato client, as an existing program would.

usage: librato_writer.py SERVER_URL [TOKEN]

Everything is at fixed times, so writing it again changes nothing. Prints how many gauges the
queue held.
"""

import sys

import librato
from librato.aggregator import Aggregator

START = 1_700_000_000


def main(url, token="any"):
    protocol, host = url.split("://")
    api = librato.connect("user@example.com", token, hostname=host, protocol=protocol)

    # Source-based: one at a time, then more than one request holds.
    api.submit("web.load", 1.5, source="web-1", measure_time=START)
    api.submit("web.bytes", 100, type="counter", source="web-1", measure_time=START)
    api.submit("web.bytes", 130, type="counter", source="web-1", measure_time=START + 60)
    with api.new_queue() as queue:
        for i in range(700):
            queue.add("queued", i, source=f"web-{i % 7}", measure_time=START + i)

    # Pre-aggregated by the client: 1 + 2 + … + 100.
    aggregator = Aggregator(api, source="web-2", measure_time=START)
    for i in range(1, 101):
        aggregator.add("web.latency", i)
    aggregator.submit()

    # Tagged.
    api.submit("tagged", 7, tags={"Region": "US-East", "az": "b"}, time=START)
    with api.new_queue(tags={"host": "web-3"}) as queue:
        queue.add("tagged", 8, time=START)
        queue.add("tagged", 9, tags={"role": "db"}, time=START)
    api.submit(
        "tagged.summary", None, sum=35, count=3, min=4.5, max=20, tags={"az": "b"}, time=START
    )

    # A bad metric in a batch costs neither its neighbours nor the batches behind it.
    queue = api.new_queue()
    queue.add("no spaces allowed", 1, measure_time=START)
    for i in range(400):
        queue.add("neighbour", i, measure_time=START + i)
    queue.submit()

    # A request of nothing but a bad metric raises, and says which and why.
    try:
        api.submit("no spaces allowed", 1, measure_time=START)
    except librato.exceptions.BadRequest as refused:
        assert "gauges[0]" in str(refused) and "metric name" in str(refused), refused
    else:
        raise AssertionError("a bad metric was not refused")
    print(700)


main(*sys.argv[1:])
