# SPDX-License-Identifier: Apache-2.0
"""Where plans lie, and what keeps a stale, foreign or damaged one from being run."""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfvit_rt.engines.plans import (
    PlanKey,
    make_folder,
    parse_batches,
    plan_folder,
    plan_path,
    read_plan,
    read_timings,
    record_path,
    timing_cache_path,
    write_file,
    write_plan,
)
from rfvit_rt.errors import EngineError

KEY = PlanKey("ab" * 32, "11.4.0.106", "NVIDIA H100", "9.0", "f16", (1, 8, 32))
PLAN = b"machine code of a GPU" * 100


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A plan with its record."""
    path = tmp_path / "plans" / "m.plan"
    write_plan(path, KEY, PLAN)
    return path


def test_a_plan_comes_back_as_it_was_written(path):
    stored = read_plan(path)
    assert (stored.key, stored.plan) == (KEY, PLAN)
    write_plan(path, replace(KEY, batches=(4,)), b"another")
    assert read_plan(path).plan == b"another"
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["m.plan", "m.plan.json"]


def test_nobody_else_can_read_or_write_it(path):
    assert [stat.S_IMODE(entry.stat().st_mode) for entry in (path, record_path(path), path.parent)] == [
        0o600,
        0o600,
        0o700,
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, None),
        ({"model_sha256": "cd" * 32}, r"made from another model file \(SHA-256 abababababab, not cdcdcdcdcdcd\)"),
        ({"gpu": "NVIDIA A100"}, r"made for NVIDIA H100 \(compute capability 9\.0\), this is NVIDIA A100 \(9\.0\)"),
        ({"compute_capability": "10.0"}, r"this is NVIDIA H100 \(10\.0\)"),
        ({"tensorrt": "11.5.0.1"}, r"made by TensorRT 11\.4\.0\.106, this is 11\.5\.0\.1"),
        ({"precision": "f32"}, "computes in f16, not in f32"),
        ({"batches": (1, 8)}, "made for batches of 1, 8, 32, not of 1, 8"),
        ({"portable": True}, "it was not made version-compatible"),
    ],
)
def test_every_part_of_the_key_counts(change, says):
    obstacle = KEY.obstacle(replace(KEY, **change))
    if says is None:
        assert obstacle is None
    else:
        assert re.search(says, obstacle or ""), obstacle


@pytest.mark.parametrize(
    ("release", "runs"),
    [("11.4.0.106", True), ("11.5.0.1", True), ("12.0.0.1", True), ("11.10.0.1", True), ("11.3.9.9", False)],
)
def test_a_portable_plan_is_for_its_own_release_and_later_ones(release, runs):
    obstacle = replace(KEY, portable=True).obstacle(replace(KEY, tensorrt=release))
    assert (obstacle is None) == runs


@pytest.mark.parametrize("damage", [PLAN[:-1], PLAN + b"x", b"", PLAN[::-1]])
def test_a_plan_that_is_not_its_records_is_refused(path, damage):
    path.write_bytes(damage)
    with pytest.raises(EngineError, match="not the one of its record: it is cut short, or was replaced"):
        read_plan(path)


def test_no_plan(tmp_path, path):
    with pytest.raises(EngineError, match=r"there is no plan .*none\.plan"):
        read_plan(tmp_path / "none.plan")
    path.unlink()
    with pytest.raises(EngineError, match=r"cannot read the plan .*: No such file"):
        read_plan(path)


def change_record(path, change):
    record = json.loads(record_path(path).read_text())
    change(record)
    record_path(path).write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r.update(version=2), "its version is 2, not 1"),
        (lambda r: r.update(version="x" * 10**4), "its version is"),
        (lambda r: r.pop("plan_sha256"), "plan_sha256"),
        (lambda r: r.update(plan_bytes=-1), "not a positive whole number"),
        (lambda r: r.update(plan_bytes=True), "not a positive whole number"),
        (lambda r: r.update(plan_bytes=1e9), "not a positive whole number"),
        (lambda r: r["key"].update(gpu=""), "a text is missing"),
        (lambda r: r["key"].update(tensorrt=11), "a text is missing"),
        (lambda r: r["key"].update(portable=1), "portable is true or false"),
        (lambda r: r["key"].update(batches=[8, 1]), "not in ascending order"),
        (lambda r: r["key"].update(batches=[]), "not in ascending order"),
        (lambda r: r["key"].update(batches=[1, "8"]), "not a positive whole number"),
        (lambda r: r["key"].update(batches=8), "not iterable"),
        (lambda r: r["key"].update(more=1), "more"),
        (lambda r: r["key"].pop("gpu"), "gpu"),
        (lambda r: r.update(key=[]), "malformed"),
    ],
)
def test_a_malformed_record_is_refused(path, change, says):
    change_record(path, change)
    with pytest.raises(EngineError, match=says) as caught:
        read_plan(path)
    assert "is malformed (" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("content", [b"", b"[", b"[" * 60000, b"null", b"\xff\xfe", b" " * 70000, b'"' + b"x" * 60000])
def test_a_record_that_is_none_is_refused(path, content):
    record_path(path).write_bytes(content)
    with pytest.raises(EngineError, match="is malformed"):
        read_plan(path)


def test_others_must_not_be_able_to_write_it(path):
    for entry in (path, record_path(path)):
        entry.chmod(0o666)
        with pytest.raises(EngineError, match="another user, and a plan is code: delete it"):
            read_plan(path)
        entry.chmod(0o600)
    timings = path.with_name("timing.cache")
    write_file(timings, b"timings")
    timings.chmod(0o602)
    with pytest.raises(EngineError, match="delete it"):
        read_timings(timings)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_another_users_plan_is_refused(path):
    os.chown(path, 12345, 12345)
    with pytest.raises(EngineError, match="could have been written by another user"):
        read_plan(path)


def test_a_write_that_fails_leaves_the_old_plan(path, monkeypatch):
    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(
        EngineError, match=r"cannot write .*m\.plan: No space left on device; make it writable, or name"
    ):
        write_plan(path, KEY, b"another")
    assert read_plan(path).plan == PLAN
    assert len(list(path.parent.iterdir())) == 2


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match=r"cannot make the folder .*name another folder in RFVIT_PLANS"):
        make_folder(tmp_path / "file" / "plans")
    with pytest.raises(EngineError, match="cannot make the folder"):
        make_folder(tmp_path / "file")


def test_timings(tmp_path):
    path = timing_cache_path(tmp_path, KEY)
    assert path.name == "timing-11.4.0.106-nvidia-h100-9.0.cache"
    assert timing_cache_path(tmp_path, replace(KEY, precision="f32", model_sha256="0")) == path
    assert timing_cache_path(tmp_path, replace(KEY, compute_capability="8.0")) != path
    assert read_timings(path) == b""
    write_file(path, b"timings")
    assert read_timings(path) == b"timings"


def test_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("RFVIT_PLANS", str(tmp_path / "here"))
    assert plan_folder() == tmp_path / "here"
    monkeypatch.delenv("RFVIT_PLANS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert plan_folder() == tmp_path / "rfvit" / "plans"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert plan_folder() == Path.home() / ".cache" / "rfvit" / "plans"


@given(model=st.text(), gpu=st.text())
def test_a_name_never_leads_out_of_the_folder(model, gpu):
    path = plan_path(Path("/plans"), model, "f16", gpu)
    assert path.parent == Path("/plans")
    assert path.suffix == ".plan"
    assert "\0" not in path.name


@pytest.mark.parametrize(("text", "sizes"), [("8", (8,)), ("1,8,32", (1, 8, 32)), ("32, 1,8,8", (1, 8, 32))])
def test_batches(text, sizes):
    assert parse_batches(text) == sizes


@pytest.mark.parametrize("text", ["", "0", "-1", "1,,2", "1.5", "4097", "1;2", "x", "1,0", "9" * 5000])
def test_batches_that_are_none(text):
    with pytest.raises(EngineError, match="expected whole numbers from 1 to 4096, such as 1,8,32"):
        parse_batches(text)
