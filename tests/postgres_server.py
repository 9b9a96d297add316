"""A PostgreSQL server of its own for tests and benchmarks: in a temporary folder, on a free loopback port."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

OWNER, PASSWORD = "shopkeeper", "open sesame/@:%"  # with what an address must encode
_SETTINGS = "listen_addresses=127.0.0.1 fsync=off synchronous_commit=off full_page_writes=off max_wal_size=4GB"


@dataclass(frozen=True)
class PostgresServer:
    """A running server.

    Attributes:
        folder: its data, its log and its socket.
        port: on the loopback interface and of the socket.
        programs: the folder of `postgres`, `psql` and `pg_ctl`.
        account: the account of this machine that it runs under; None: ours.
    """

    folder: Path
    port: int
    programs: Path
    account: str | None

    def address(self, *, password: str | None = PASSWORD, database: str = "postgres") -> str:
        """The address for `--connection`, with a password, if one is given."""
        secret = "" if password is None else f":{quote(password, safe='')}"
        return f"postgresql://{OWNER}{secret}@127.0.0.1:{self.port}/{database}"

    def run(self, sql: str, *, database: str = "postgres", table: Path | None = None) -> None:
        """Run statements, with a file as the input of a COPY ... FROM STDIN."""
        server = ["-h", "127.0.0.1", "-p", str(self.port), "-U", OWNER, "-d", database]
        with table.open("rb") if table else contextlib.nullcontext() as given:
            subprocess.run(
                [self.programs / "psql", *server, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql],
                stdin=given, check=True, env={**os.environ, "PGPASSWORD": PASSWORD},
            )  # fmt: skip

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = " ".join(f"-c {setting}" for setting in _SETTINGS.split())
        self._control("start", "-w", "-l", self.folder / "log", "-o", f"-p {self.port} -k {self.folder} {settings}")

    def kill(self) -> None:
        """Stop it at once, as a crash would; open connections break."""
        self._control("stop", "-m", "immediate")

    def create(self) -> None:
        """Make its data folder, owned by OWNER, who needs PASSWORD."""
        password = self.folder / "password"
        password.write_text(PASSWORD)
        secured = ["--auth=scram-sha-256", "-U", OWNER, f"--pwfile={password}"]
        self._as_account(
            [self.programs / "initdb", "-D", self.folder / "data", *secured, "-E", "UTF8", "--locale=C", "--no-sync"]
        )

    def _control(self, *command: str | Path) -> None:
        self._as_account([self.programs / "pg_ctl", "-D", self.folder / "data", *command])

    def _as_account(self, command: list[str | Path]) -> None:
        groups: list[int] | None = None if self.account is None else []
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder,
            user=self.account, group=self.account, extra_groups=groups,
        )  # fmt: skip


def find_programs() -> Path | None:
    """The folder of PostgreSQL's programs, or None where it is not installed. Debian keeps them off the PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb", path=os.pathsep.join([os.environ.get("PATH", ""), *map(str, debian)]))
    return Path(found).resolve().parent if found else None


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Create and start a server; at the end nothing of it is left.

    PostgreSQL refuses to run as root: there it runs as `postgres`, the account of Debian's package.

    Raises:
        FileNotFoundError: PostgreSQL is not installed.
    """
    programs = find_programs()
    if programs is None:
        raise FileNotFoundError("PostgreSQL is not installed (no initdb); Debian: apt-get install postgresql")
    account = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="catalign-postgres-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if account is not None:
            shutil.chown(folder, account, account)
        server = PostgresServer(folder, _free_port(), programs, account)
        server.create()
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):  # a test may have killed it
                server.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
