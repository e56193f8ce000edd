# SPDX-License-Identifier: Apache-2.0
"""The published JSON schema against what is really sent, and against what our own reader refuses."""

from __future__ import annotations

import copy
import json
from importlib.resources import files
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given

from rfvit_rt.datatypes import Mask
from rfvit_rt.errors import WireError
from rfvit_rt.wire.results import TYPES, VERSION, Result, encode, from_dict
from rfvit_rt.wire.summary import summarise

from .test_results import EXAMPLES, activities, annotations, emissions, sensing_statuses, statuses

SCHEMA = json.loads(files("rfvit_rt.wire").joinpath("results.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def window() -> Result:
    probabilities = np.random.default_rng(1).dirichlet((1, 1, 1), (20, 64)).astype(np.float32)
    return summarise(Mask(probabilities, 100, 4000, 2e6, 806e6), ("background", "LTE", "NR"))


def messages() -> list[dict[str, Any]]:
    return [json.loads(encode(result)) for result in (*EXAMPLES, window())]


def test_it_is_a_schema_of_this_version() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["version"]["const"] == VERSION
    assert SCHEMA["$id"].endswith(f":{VERSION}")
    assert {part["$ref"].rpartition("/")[2] for part in SCHEMA["oneOf"]} == set(TYPES)


@given(annotations | emissions | statuses | activities | sensing_statuses)
def test_every_result_is_valid(result: Result) -> None:
    VALIDATOR.validate(json.loads(encode(result)))


@pytest.mark.parametrize("message", messages(), ids=lambda message: message["type"])
def test_it_describes_every_field_that_is_sent_and_no_other(message: dict[str, Any]) -> None:
    VALIDATOR.validate(message)
    described = SCHEMA["$defs"][message["type"]]
    assert {*described["properties"], "version"} == message.keys()
    assert {*described["required"], "type", "version"} == message.keys()


@pytest.mark.parametrize("message", messages(), ids=lambda message: message["type"])
def test_what_it_refuses_our_reader_refuses_too(message: dict[str, Any]) -> None:
    """Every field in turn is missing, of a wrong kind, and out of every range."""
    refused = 0
    for name, value in message.items():
        spoilt = [{key: item for key, item in message.items() if key != name}]
        for wrong in (None, True, "", "x" * 129, -1, 1.5, -1.5, 2**63, [], {}, [value], "\udc00"):
            spoilt.append(copy.deepcopy(message) | {name: wrong})
        for one in spoilt:
            if not VALIDATOR.is_valid(one):
                refused += 1
                with pytest.raises(WireError):
                    from_dict(one)
    assert refused >= 7 * len(message)  # most of them are wrong for most fields


@pytest.mark.parametrize("wrong", [[], {}, {"type": "annotation"}, {"type": "weather", "version": 1}])
def test_other_objects_are_refused(wrong: object) -> None:
    assert not VALIDATOR.is_valid(wrong)


def test_fields_that_it_does_not_know_are_let_through() -> None:
    VALIDATOR.validate(messages()[0] | {"rfvit:of_a_later_release": 1})
