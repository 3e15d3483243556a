"""Writes points with the official InfluxDB client, as an existing program would.

usage: influx.py SERVER_URL [TOKEN]

Prints how many points it wrote.
"""

import sys

from influxdb_client import InfluxDBClient, Point, WritePrecision
from influxdb_client.client.write_api import SYNCHRONOUS

START = 1_700_000_000


def points():
    for i in range(500):
        yield (
            Point("weather")
            .tag("city", "São Paulo, SP")
            .tag("station", f"s={i % 3}")
            .field("temperature", 20.0 + i / 7)
            .field("humidity", i)
            .time(START + i, WritePrecision.S)
        )


def main(url, token="any"):
    written = list(points())
    with InfluxDBClient(url=url, token=token, org="any", enable_gzip=True) as client:
        assert client.ping(), "the server does not answer a ping"
        with client.write_api(write_options=SYNCHRONOUS) as api:
            api.write(bucket="any", record=written, write_precision=WritePrecision.S)
    print(len(written))


main(*sys.argv[1:])
