"""`catalign serve`."""

import ipaddress
import logging
import socket
from pathlib import Path
from typing import Annotated

import typer

from catalign.cli.options import Score
from catalign.errors import UserError

BACKLOG = 2048


def serve(
    run: Annotated[
        list[str] | None, typer.Argument(help="A run folder, or several with a weight each: RUN:0.9 OTHER:0.1.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 takes a free port.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on; by default this machine alone.")] = "127.0.0.1",
    keys: Annotated[
        Path | None, typer.Option(help="File of API keys: lines of NAME SHA256, 'items' behind them.")
    ] = None,
    no_keys: Annotated[bool, typer.Option("--no-keys", help="Listen on other addresses without keys.")] = False,
    new_key: Annotated[str | None, typer.Option(help="Print a new key for this name and its line, and stop.")] = None,
    max_wait_ms: Annotated[float, typer.Option(min=0, help="How long a request waits for others to join it.")] = 5.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Requests computed at once.")] = 32,
    queue_size: Annotated[int, typer.Option(min=1, help="Requests that may wait; one more gets 503.")] = 256,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds after which a request gets 504.")] = 10.0,
    max_body: Annotated[int, typer.Option(min=1, help="Largest request body in bytes.")] = 1 << 20,
    max_k: Annotated[int, typer.Option(min=1, help="Most items asked for at once.")] = 100,
    prompt_cache_mb: Annotated[
        float, typer.Option(min=0, help="Memory for prompts of before, so that returning users wait less; 0: none.")
    ] = 128.0,
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="Web pages of this origin may call the service; repeat it.")
    ] = None,
    score: Score = "valid",
    log_histories: Annotated[bool, typer.Option("--log-histories", help="Write what was asked into the log.")] = False,
) -> None:
    """Answer over HTTP: recommend, rank, explain, and change the catalogue while it runs.

    catalign serve runs/msl --port 8000
    """
    from catalign.serving.keys import new_key as make_key
    from catalign.serving.keys import read_keys
    from catalign.serving.settings import ServiceSettings

    if new_key is not None:
        key, line = make_key(new_key)
        typer.echo(f"key:  {key}\nline: {line}")
        return
    if not run:
        raise UserError("no run given", where="catalign serve", mend="name a run folder made by catalign train")
    allowed = None if keys is None else read_keys(keys)
    if allowed is None and not no_keys and not _is_loopback(host):
        raise UserError("everybody who reaches this address could ask and change the catalogue", where=f"--host {host}",
                        mend="pass --keys FILE, or --no-keys if something in front of it lets people in")  # fmt: skip
    settings = ServiceSettings(
        max_wait_ms=max_wait_ms, batch_size=batch_size, queue_size=queue_size, timeout_s=timeout,
        max_body_bytes=max_body, max_k=max_k, prompt_cache_mb=prompt_cache_mb,
        cors_origins=tuple(cors_origin or ()), log_histories=log_histories, score=score,
    )  # fmt: skip
    try:
        import uvicorn

        from catalign.serving.app import create_app
        from catalign.serving.service import Service
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed", where="catalign serve",
                        mend="pip install 'catalign[serve]'") from error  # fmt: skip
    from catalign.model.precision import choose_device
    from catalign.progress import console
    from catalign.serving.variants import load_variants

    with _bound(host, port) as listening:
        variants = load_variants(run, choose_device())
        app = create_app(Service(variants, settings), allowed)
        log = logging.getLogger("catalign.requests")
        log.setLevel(logging.INFO)
        log.propagate = False
        log.addHandler(logging.StreamHandler())
        named = ", ".join(f"{variant.name} ({variant.share:.0%})" for variant in variants)
        listening.listen(BACKLOG)  # whoever reads the address may call; the server answers in a moment
        address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        console.print(f"serving {named} on {address}", markup=False, soft_wrap=True)
        config = uvicorn.Config(app, access_log=False, log_level="warning")
        uvicorn.Server(config).run(sockets=[listening])


def _bound(host: str, port: int) -> socket.socket:
    """A socket that has the address already, before a model is loaded for it."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise UserError(f"cannot listen there ({error.strerror})", where=f"--host {host} --port {port}",
                        mend="choose another --port, or an address of this machine") from error  # fmt: skip
    return bound


def _is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
