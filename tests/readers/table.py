"""Prints one resolution of a Stele table as the Python `deltalake` package reads it, as CSV.

usage: table.py TABLE_URL RESOLUTION

Samples have the documented value, coalesce(value, value_int / value_div). Numbers are printed by
repr, which reads back to the same bits.
"""

import csv
import os
import sys

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

FIGURES = ["count", "sum", "min", "max", "first", "last", "sum_squares", "increase"]


def options():
    options = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    if options.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        options["AWS_ALLOW_HTTP"] = "true"
    return options


def main(url, resolution):
    table = DeltaTable(url, storage_options=options())
    rows = table.to_pyarrow_table(partitions=[("resolution", "=", resolution)])
    columns = {
        "metric": rows["metric"],
        "tags": rows["tags"],
        "us": pc.cast(pc.cast(rows["ts"], pa.timestamp("us", "UTC")), "int64"),
    }
    if resolution in ("raw", "open"):
        scaled = pc.divide(pc.cast(rows["value_int"], "float64"), rows["value_div"])
        columns["value"] = pc.coalesce(rows["value"], scaled)
    else:
        columns.update((name, rows[name]) for name in FIGURES)
    out = csv.writer(sys.stdout)
    out.writerow(columns)
    lists = [column.to_pylist() for column in columns.values()]
    for row in zip(*lists):
        out.writerow(repr(x) if isinstance(x, float) else x for x in row)


main(*sys.argv[1:])
sys.stdout.flush()
# The native threads of the readers sometimes abort an orderly exit of the interpreter.
os._exit(0)
