"""Parts answered by Ray Data: actors that hold the model, on this machine or on a cluster.

What goes through Ray are the numbers of parts. An actor reads the requests of a part from the output folder and writes
the part there, so both folders must lie where all machines see them under the same path. An actor that dies is started
again and its part answered anew: it writes the same file.
"""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalign.batch.answering import PartAnswerer
from catalign.batch.folder import BatchFolder, part_name
from catalign.batch.settings import BatchSettings
from catalign.errors import UserError

TRIES = 10  # of one part; and of a worker to come up, one after the other
REACHED_WITHIN = 10.0  # seconds
STARTS = 3  # of our own cluster
STORE_BYTES = 80 * 2**20  # of our own cluster's object store, which holds numbers of parts


@dataclass(frozen=True)
class Workers:
    """The actors.

    Attributes:
        least, most: how many; Ray Data adds and removes them in between as parts wait.
        address: of a running cluster; None starts one on this machine that ends with the command.
    """

    least: int = 1
    most: int = 1
    address: str | None = None


class _Actor:
    """The model in one worker; Ray Data makes it once and gives it one part at a time."""

    def __init__(self, run: str, output: str, settings: dict[str, Any]) -> None:
        self._tries = _Tries(Path(output))
        self._answerer = PartAnswerer(Path(run), Path(output), BatchSettings.model_validate(settings))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        for part in batch["part"].tolist():
            self._tries.count(part)
            self._answerer.write(part)
        return batch


class _Tries:
    """How often each part was begun, on disk: Ray begins a part anew for ever, also one that kills every worker."""

    def __init__(self, output: Path) -> None:
        self._folder = BatchFolder(output).requests

    def clear(self) -> None:
        """Count from 0."""
        for path in self._folder.glob("*.tries"):
            path.unlink()

    def count(self, part: int) -> None:
        """Count one more.

        Raises:
            UserError: it was begun too often.
        """
        path = self._folder / f"{part_name(part)}.tries"
        with path.open("ab") as file:
            file.write(b".")
        if path.stat().st_size > TRIES:
            mend = "the worker may have too little memory: see Ray's logs, or pass a smaller --batch-size"
            raise UserError(f"was begun {TRIES} times and its worker died every time", where=part_name(part), mend=mend)


def answer_with_ray(
    run: Path, output: Path, settings: BatchSettings, workers: Workers, left: list[int]
) -> Iterator[int]:
    """Write parts and yield the number of each, in the order they are done.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the address.
    """
    if not left:
        return
    _Tries(output).clear()
    with redirect_stdout(sys.stderr), _cluster(workers) as gpus:  # on standard output Ray tells of dead workers
        import ray.data

        places = {"run": str(run.resolve()), "output": str(output.resolve())}
        parts = ray.data.from_items([{"part": part} for part in left], override_num_blocks=len(left)).map_batches(
            _Actor,
            fn_constructor_kwargs={**places, "settings": settings.model_dump(mode="json")},
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(
                min_size=workers.least, max_size=workers.most, max_tasks_in_flight_per_actor=2
            ),
            num_cpus=1,
            num_gpus=1 if gpus else 0,
        )
        try:
            for row in parts.iter_rows():
                yield int(row["part"])
        except Exception as error:
            raise _mistake(error) or error from None


def _mistake(error: BaseException | None) -> UserError | None:
    """The user's mistake among the causes of what Ray raised; Ray makes classes of its own from it."""
    while error is not None and type(error) is not UserError:
        error = getattr(error, "cause", None) or error.__cause__
    return error


@contextmanager
def _cluster(workers: Workers) -> Iterator[bool]:
    """Connect to a cluster, or start one, silently and without telemetry; yields whether it has GPUs."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray warns where it is not said
    try:
        import ray.data
    except ImportError as error:
        raise UserError(
            "Ray is not installed", where="--engine ray", mend="install it: pip install 'catalign[cluster]'"
        ) from error
    before = signal.getsignal(signal.SIGTERM)
    _connect(workers)
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray put its own there
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.max_consecutive_actor_init_deaths = TRIES
        context.execution_no_progress_timeout_s = -1  # a part may take long, and so may a machine to come
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        yield ray.cluster_resources().get("GPU", 0) > 0  # type: ignore[no-untyped-call]
    finally:
        ray.shutdown()


def _connect(workers: Workers) -> None:
    """Connect, or start a cluster; on a busy machine it may not be up within the half minute that Ray waits."""
    import ray

    if workers.address is not None:
        _reach(workers.address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    own: dict[str, Any] = {"include_dashboard": False, "num_cpus": workers.most, "object_store_memory": STORE_BYTES}
    for tries_left in reversed(range(1 if workers.address else STARTS)):
        try:
            ray.init(workers.address or "local", **quiet, **({} if workers.address else own))
            return
        except Exception as error:  # plain ones too
            ray.shutdown()
            if not tries_left:
                where = "--engine ray" if workers.address is None else f"--ray-address {workers.address}"
                raise UserError(f"Ray does not start ({error})", where=where) from error


def _reach(address: str) -> None:
    """Refuse an address where nobody listens: Ray would wait for minutes."""
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdigit()):
        return  # auto, and what else Ray knows
    try:
        socket.create_connection((host, int(port)), timeout=REACHED_WITHIN).close()
    except OSError as error:
        mend = "start one (ray start --head), or leave the option out"
        raise UserError(f"no cluster is there ({error})", where=f"--ray-address {address}", mend=mend) from error
