"""Interactions through PostgreSQL into a dataset: `python -m benchmarks.sql --work /tmp/sql --quick`.

The tables of `benchmarks.prepare` are generated as CSV files and copied into a PostgreSQL server that this benchmark
starts for itself. One process only reads the query, another prepares a dataset of it (5-core, chronological split,
windows, Parquet), a third prepares the same from the files: rows per second, seconds on the processor and the largest
resident memory of each process (the server's work and memory are its own), and whether the two datasets are the same.
"""

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

from tests.postgres_server import PostgresServer, postgres_server

from benchmarks import prepare as files
from catalign.data.ledger import Ledger
from catalign.data.options import Query, TableOptions, TableSource
from catalign.data.prepare import prepare_tables
from catalign.data.tables import read_chunks

SCHEMA = 'CREATE UNLOGGED TABLE log ("user" text, item text, time bigint, stars smallint); ' + (
    "CREATE UNLOGGED TABLE items (item text, title text)"
)
COPY = "COPY {table} FROM STDIN (FORMAT csv, HEADER)"


def load(server: PostgresServer, folder: Path) -> dict[str, Any]:
    """Copy the generated files into the server."""
    server.run(SCHEMA)
    start = time.perf_counter()
    for table in ("log", "items"):
        server.run(COPY.format(table=table), table=folder / f"{table}.csv")
    return {"seconds": round(time.perf_counter() - start, 1)}


def read(address: str) -> dict[str, Any]:
    """Read the interactions and do nothing with them."""
    query, ledger = Query(connection=address, query="log", name="interactions query"), Ledger()
    columns = {name: name for name in ("user", "item", "time", "stars")}
    start = time.perf_counter()
    for _ in read_chunks(query, columns, table_name="interactions", ledger=ledger):
        pass
    return _measured(start, ledger.rows_in["interactions"])


def prepare(address: str, output: Path) -> dict[str, Any]:
    """Prepare a dataset of the two queries."""
    source = TableSource(
        interactions=Query(connection=address, query="log", name="interactions query"),
        items=Query(connection=address, query="items", name="items query"),
        user="user", item="item", time="time", rating="stars", item_id="item", title="title",
    )  # fmt: skip
    start = time.perf_counter()
    card = prepare_tables(source, TableOptions(k_core=5), output).card
    return _measured(start, card.rows_in["interactions"]) | {"kept": card.interactions}


def _measured(start: float, rows: int) -> dict[str, Any]:
    seconds = time.perf_counter() - start
    return {
        "seconds": round(seconds, 1),
        "rows_per_second": round(rows / seconds),
        "processor_seconds": round(time.process_time(), 1),
        "peak_gigabytes": files.peak(),
    }


def measure(work: Path, rows: int) -> dict[str, Any]:
    """Generate, copy, read, prepare both ways, compare, clean up."""
    folder = work / f"sql-{rows}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        files.in_process(files.generate, folder, rows, "csv")
        with postgres_server() as server:
            result: dict[str, Any] = {"rows": rows, "copied_in": load(server, folder)}
            result["read"] = files.in_process(read, server.address())
            result["prepared"] = files.in_process(prepare, server.address(), folder / "queried")
        result["prepared_from_csv"] = files.in_process(files.prepare, folder, "csv")
        queried, copied = (tables_of(folder / name) for name in ("queried", "dataset"))
        return result | {"same": queried == copied}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def tables_of(dataset: Path) -> dict[str, str]:
    """SHA-256 of each table; the rejects name their source, so they differ."""
    files_of = json.loads((dataset / "dataset.json").read_text())["files"]
    return {name: sha256 for name, sha256 in files_of.items() if name.endswith(".parquet")}


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a folder for tables and datasets; they are removed")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--quick", action="store_true", help="50,000 rows")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    result = measure(options.work, 50_000 if options.quick else options.rows)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print("\n".join(f"{key}: {json.dumps(value)}" for key, value in result.items()))


if __name__ == "__main__":
    main()
