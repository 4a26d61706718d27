"""Slow connections are cut off, and others do not notice; long form: bench/slow_clients.py."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from service.upload import begun
from tests.conftest import ROOT
from tests.service.conftest import LIMITS, Api

SCRIPT = """
import asyncio, json, sys
from bench.slow_clients import attack
print(json.dumps(asyncio.run(attack(sys.argv[1], 3.0, 40, 20))))
"""


def test_slow_heads_and_bodies_are_cut_and_hold_no_place_of_others(api: Api) -> None:
    command = [sys.executable, "-c", SCRIPT, api.url]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    answers: list[int] = []
    with api.client() as client:
        while process.poll() is None:
            answers.append(client.post("/files", content=b"small").status_code)
            answers.append(client.get("/jobs").status_code)
            time.sleep(0.02)
    held = json.loads(process.communicate()[0])
    assert len(held["head"]) >= 40
    assert len(held["body"]) >= 20
    assert max(held["head"] + held["body"]) < LIMITS.head_seconds + 4
    assert set(answers) <= {200, 201}  # 20 slow bodies, 8 places: a place is for who has begun


def test_a_dripping_body_after_an_early_answer_is_cut_too(api: Api) -> None:
    from bench.slow_clients import slow

    start = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    assert asyncio.run(slow(api.url, start, 0.2)) < LIMITS.body_window_seconds + 3


def test_a_body_cut_off_before_it_began_asks_for_no_place() -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": b"a", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    with pytest.raises(ClientDisconnect):
        asyncio.run(begun(receive))
