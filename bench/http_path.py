"""The service's path for bytes and polls, beside nginx and a bare Starlette, in one run.

Uploads: 8 files at once to POST /files (sha256 while they arrive, fsync before the 201) and to
nginx's PUT (no hash, no fsync). Downloads: from GET /files/{id} and from nginx with sendfile.
Polls: GET /jobs/{id} with ETag, from Redis, and a constant of the same bytes from a bare Starlette
route on uvicorn. All sides take turns; each figure is the ratio of the medians over the rounds.

Needs nginx (with the dav module) and wrk. Writes bench/results/http_path.json.
Run on a quiet machine: python bench/http_path.py [ROUNDS]
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results" / "http_path.json"
sys.path[:0] = [str(ROOT)]

MIB = 1 << 20
STREAMS = 8
UPLOAD = 128 * MIB
DOWNLOAD = 256 * MIB
LARGE = 1024 * MIB
CONNECTIONS = 50
WRK_SECONDS = 1
CLOSE = "Connection: close\r\n\r\n"
GOALS = {
    "upload_rss_growth_mib": ("at most", 16.0),
    "upload_8_to_nginx": ("at least", 0.55),
    "download_1_to_nginx": ("at least", 0.9),
    "download_4_to_nginx": ("at least", 0.9),
    "poll_to_bare_starlette": ("at least", 0.8),
    "poll_304_to_bare_starlette": ("at least", 0.8),
}
NGINX = """
daemon off; worker_processes 1; user root; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; sendfile on; client_max_body_size 0; client_body_temp_path {folder}/body;
  server {{ listen 127.0.0.1:{port}; root {folder}/www; location / {{ dav_methods PUT; }} }}
}}
"""
BARE = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
body = open(sys.argv[2], "rb").read()
async def show(request): return Response(body, media_type="application/json")
app = Starlette(routes=[Route("/jobs/{job_id}", show)])
uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False,
            log_level="error")
"""
SPEC = {
    "model": {"architecture": {"library": "planish", "name": "cifar_resnet"}},
    "recipe": [{"op": "simplify"}],
}

Rates = dict[str, list[float]]
_NOWHERE = bytearray(MIB)


def main() -> None:
    """Measure all sides, publish the figures, exit with 1 when a target is missed."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for tool in ("nginx", "wrk"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is needed: apt-get install nginx-light wrk")
    with tempfile.TemporaryDirectory(prefix="planish-bench-") as name:
        folder = Path(name)
        with planish(folder) as (api, process), nginx(folder) as web:
            figures: dict[str, Any] = {"upload_rss_growth_mib": memory(api, process, folder)}
            uploads = upload_rates(api, web, folder, rounds)
            downloads = download_rates(api, web, folder, rounds)
            polls = poll_rates(api, folder, rounds)
    for rates in (uploads, downloads):
        for streams in (1, 4, STREAMS):
            kind = "upload" if rates is uploads else "download"
            if f"planish {streams}" in rates:
                figures[f"{kind}_{streams}_to_nginx"] = ratio(rates, f" {streams}", "nginx")
    figures["poll_to_bare_starlette"] = ratio(polls, "", "bare")
    figures["poll_304_to_bare_starlette"] = median(polls["planish 304"]) / median(polls["bare"])
    publish(figures, {"upload_mib_s": uploads, "download_mib_s": downloads, "polls_s": polls})


def ratio(rates: Rates, suffix: str, other: str) -> float:
    """Return planish / other, of medians."""
    return median(rates[f"planish{suffix}"]) / median(rates[f"{other}{suffix}"])


median = statistics.median


def memory(api: str, process: psutil.Process, folder: Path) -> float:
    """Upload 1 GiB; return by how many MiB the peak is above the size before."""
    warm = make_file(folder / "warm", MIB)
    for _ in range(3):
        drop(api, upload(api, "POST", "/files", warm))
    large = make_file(folder / "large", LARGE)
    before = process.memory_info().rss
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # resets the peak
    drop(api, upload(api, "POST", "/files", large))
    peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
    assert peak is not None
    large.unlink()
    return (int(peak[1]) * 1024 - before) / MIB


def upload_rates(api: str, web: str, folder: Path, rounds: int) -> Rates:
    """Return MiB/s of each round, for one and for eight uploads at once."""
    files = [make_file(folder / f"up{n}", UPLOAD) for n in range(STREAMS)]
    rates: Rates = {}
    for _ in range(rounds):
        for streams in (1, STREAMS):
            chosen = files[:streams]
            answers: list[bytes] = []
            took = at_once(
                [lambda f=f, a=answers: a.append(upload(api, "POST", "/files", f)) for f in chosen]
            )
            rates.setdefault(f"planish {streams}", []).append(streams * UPLOAD / MIB / took)
            for answer in answers:
                drop(api, answer)
            took = at_once([lambda f=f: upload(web, "PUT", f"/{f.name}", f) for f in chosen])
            rates.setdefault(f"nginx {streams}", []).append(streams * UPLOAD / MIB / took)
            for file in chosen:
                (folder / "www" / file.name).unlink()
            os.sync()
    for file in files:
        file.unlink()
    return rates


def download_rates(api: str, web: str, folder: Path, rounds: int) -> Rates:
    """Return MiB/s of each round, for one and for four downloads at once, from the page cache."""
    file = make_file(folder / "www" / "down", DOWNLOAD)
    file_id = json.loads(upload(api, "POST", "/files", file))["id"]
    rates: Rates = {}
    for _ in range(4 * rounds):
        for streams in (1, 4):
            for side, base, path in (
                ("planish", api, f"/files/{file_id}"),
                ("nginx", web, "/down"),
            ):
                took = at_once([lambda b=base, p=path: download(b, p)] * streams)
                rates.setdefault(f"{side} {streams}", []).append(streams * DOWNLOAD / MIB / took)
    return rates


def poll_rates(api: str, folder: Path, rounds: int) -> Rates:
    """Return requests/s of each round, at 50 connections."""
    job = submit(api)
    answer = httpx.get(api + job)
    (folder / "job.json").write_bytes(answer.content)
    etag = answer.headers["etag"]
    rates: Rates = {}
    with bare(folder / "job.json") as other:
        for _ in range(4 * rounds):
            rates.setdefault("bare", []).append(wrk(other + job))
            rates.setdefault("planish", []).append(wrk(api + job))
            rates.setdefault("planish 304", []).append(wrk(api + job, f"If-None-Match: {etag}"))
    return rates


def submit(api: str) -> str:
    """Submit a job that nobody runs; return its path."""
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}  '
    model = len(header).to_bytes(8, "little") + header + bytes(4)
    files = {"spec": ("s", json.dumps(SPEC), "application/json"), "model": ("m", model)}
    return str(httpx.post(f"{api}/jobs", files=files).raise_for_status().headers["location"])


def wrk(url: str, *headers: str) -> float:
    """Return the requests per second that wrk gets."""
    options = [part for header in headers for part in ("-H", header)]
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{WRK_SECONDS}s", *options, url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", text)
    assert found is not None
    assert "Non-2xx" not in text, text
    return float(found[1])


def at_once(calls: list[Callable[[], object]]) -> float:
    """Make all calls in threads; return the seconds until the last one is done."""
    threads = [threading.Thread(target=call) for call in calls]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def upload(base: str, method: str, path: str, file: Path) -> bytes:
    """Send a file by sendfile(2); return the body of the answer."""
    size = file.stat().st_size
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n{CLOSE}"
    with connect(base) as connection, file.open("rb") as source:
        connection.sendall(head.encode())
        offset = 0
        while offset < size:
            offset += os.sendfile(connection.fileno(), source.fileno(), offset, size - offset)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    status, _, body = answer.partition(b"\r\n\r\n")
    assert status.split()[1] in (b"200", b"201", b"204"), answer[:300]
    return body


def download(base: str, path: str) -> None:
    """Receive a file; MSG_TRUNC on TCP drops the bytes in the kernel."""
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/octet-stream\r\n{CLOSE}"
    received = 0
    with connect(base) as connection:
        connection.sendall(head.encode())
        while piece := connection.recv_into(_NOWHERE, MIB, socket.MSG_TRUNC):
            received += piece
    assert received >= DOWNLOAD, received


def connect(base: str) -> socket.socket:
    """Open a connection to ``http://127.0.0.1:PORT``."""
    return socket.create_connection(("127.0.0.1", int(base.rsplit(":", 1)[1])))


def drop(api: str, answer: bytes) -> None:
    """Delete an uploaded file again."""
    httpx.delete(f"{api}/files/{json.loads(answer)['id']}").raise_for_status()


def make_file(path: Path, size: int) -> Path:
    """Write a file of random bytes; a block of them is enough."""
    block = secrets.token_bytes(4 * MIB)
    with path.open("wb") as file:
        file.write(secrets.token_bytes(64))
        while file.tell() < size:
            file.write(block[: size - file.tell()])
    return path


@contextmanager
def planish(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Run the API on an embedded Redis; give its address and process."""
    from planish.store.embedded import EmbeddedRedis

    redis = EmbeddedRedis(folder)
    env = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PLANISH_DATA_DIR": str(folder / "data"),
        "PLANISH_REDIS_URL": redis.start(),
    }
    command = [sys.executable, "-m", "service.main", "--port", "0"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield line.split()[-1], psutil.Process(process.pid)
    finally:
        stop(process)
        redis.stop()


@contextmanager
def nginx(folder: Path) -> Iterator[str]:
    """Run nginx; give its address."""
    port = free_port()
    (folder / "www").mkdir(mode=0o777)
    conf = folder / "nginx.conf"
    conf.write_text(NGINX.format(folder=folder, port=port))
    process = subprocess.Popen(
        ["nginx", "-p", str(folder), "-c", str(conf)], stderr=subprocess.DEVNULL
    )
    yield from running(process, port)


@contextmanager
def bare(body: Path) -> Iterator[str]:
    """Run the bare Starlette; give its address."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", BARE, str(port), str(body)])
    yield from running(process, port)


def running(process: subprocess.Popen[Any], port: int) -> Iterator[str]:
    """Wait until the port is open, give the address, stop the process at the end."""
    try:
        for _ in range(200):
            with suppress(OSError), connect(f":{port}"):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)


def stop(process: subprocess.Popen[Any]) -> None:
    """Ask the process to end, and wait."""
    process.send_signal(signal.SIGTERM)
    process.wait(30)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def publish(figures: dict[str, float], rounds: dict[str, Rates]) -> None:
    """Print the figures, keep them in bench/results, exit with 1 when a target is missed."""
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"ratios": figures, "rounds": rounds}, indent=2) + "\n")
    for kind, rates in rounds.items():
        for side, values in rates.items():
            print(f"       {kind:16} {side:12} {median(values):10.0f}")
    missed = 0
    for name, value in figures.items():
        side, goal = GOALS.get(name, ("", 0.0))
        met = value <= goal if side == "at most" else value >= goal
        missed += not met
        target = f"({side} {goal})" if side else ""
        print(f"{'met   ' if met else 'MISSED'} {name}: {value:.2f} {target}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
