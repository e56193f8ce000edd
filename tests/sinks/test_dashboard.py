# SPDX-License-Identifier: Apache-2.0
"""The dashboard's queries, put to a real Prometheus that scrapes runs of both kinds."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from rfvit_rt.datatypes import Activity
from rfvit_rt.sinks.prometheus import PrometheusSink, RunInfo

from .test_prometheus import FREE, LTE, SEGMENTATION, SENSING

PATIENCE = 60.0  # seconds; it is there in two on a quiet machine


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], list[Any]]]:
    """A function that puts a query to Prometheus and gives the series that it finds."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("this test needs Prometheus; install: sudo apt-get install prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    with (
        PrometheusSink(
            FREE, RunInfo("openvino", "a CPU", "f32", "spectra", "segmentation", "ab"), lambda: SEGMENTATION
        ) as one,
        PrometheusSink(FREE, RunInfo("openvino", "a CPU", "f32", "rooms", "activity", "cd"), lambda: SENSING) as two,
    ):
        one.write(LTE)
        two.write(Activity("walk", 1.5, 4.25, 150, 275, 0.93, 99.6, 1))
        targets = [f"{sink.address.host}:{sink.address.port}" for sink in (one, two)]
        with prometheus(program, folder, targets) as query:
            yield query


@contextmanager
def prometheus(program: str, folder: Path, targets: list[str]) -> Iterator[Callable[[str], list[Any]]]:
    """Prometheus, scraping addresses twice a second."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    scrape = {"job_name": "rfvit", "static_configs": [{"targets": targets}]}
    config = folder / "prometheus.yml"
    config.write_text(json.dumps({"global": {"scrape_interval": "500ms"}, "scrape_configs": [scrape]}))  # YAML too
    arguments = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}"]

    def query(expression: str) -> list[Any]:
        url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            found = json.load(answer)
        assert found["status"] == "success"
        return list(found["data"]["result"])

    with subprocess.Popen([program, *arguments], stderr=subprocess.DEVNULL) as process:
        try:
            yield query
        finally:
            process.terminate()


def expressions() -> list[str]:
    dashboard = json.loads(files("rfvit_rt.sinks").joinpath("grafana.json").read_text(encoding="utf-8"))
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def test_every_query_finds_what_the_runs_export(ask: Callable[[str], list[Any]]) -> None:
    """Grafana puts a range and the chosen runs in place of its variables; so does this."""
    assert len(expressions()) > 20
    until = time.monotonic() + PATIENCE
    silent = expressions()
    while silent and time.monotonic() < until:
        time.sleep(0.5)
        try:
            silent = [one for one in silent if not ask(_filled_in(one))]
        except OSError:
            continue  # it is not up yet
    assert silent == []


def _filled_in(expression: str) -> str:
    ranged = re.sub(r"\$__(rate_interval|range|interval)", "10s", expression)
    chosen = re.sub(r'"\$\w+"', '".*"', ranged)
    assert "$" not in chosen, expression
    return chosen
