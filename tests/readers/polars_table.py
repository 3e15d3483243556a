"""Prints one resolution of a Stele table as Polars reads it, as CSV.

usage: polars_table.py TABLE_URL RESOLUTION

The form is that of table.py.
"""

import csv
import os
import sys

import polars as pl

FIGURES = ["count", "sum", "min", "max", "first", "last", "sum_squares", "increase"]


def main(url, resolution):
    options = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    if options.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        options["AWS_ALLOW_HTTP"] = "true"
    table = pl.scan_delta(url, storage_options=options or None)
    table = table.filter(pl.col("resolution") == resolution)
    columns = [
        pl.col("metric").cast(pl.String),
        pl.col("tags").cast(pl.String),
        pl.col("ts").dt.epoch("us").alias("us"),
    ]
    if resolution in ("raw", "open"):
        scaled = pl.col("value_int").cast(pl.Float64) / pl.col("value_div")
        columns.append(pl.coalesce("value", scaled).alias("value"))
    else:
        columns.extend(pl.col(name) for name in FIGURES)
    rows = table.select(columns).collect()
    out = csv.writer(sys.stdout)
    out.writerow(rows.columns)
    for row in rows.iter_rows():
        out.writerow(repr(x) if isinstance(x, float) else x for x in row)


main(*sys.argv[1:])
sys.stdout.flush()
# The native threads of the readers sometimes abort an orderly exit of the interpreter.
os._exit(0)
