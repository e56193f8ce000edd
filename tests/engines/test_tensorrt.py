# SPDX-License-Identifier: Apache-2.0
"""Our side of the TensorRT engine: buffers, order, padding, contexts, plans, errors. On stand-ins: no GPU is here.

tensorrt_standin.py and pycuda_standin.py say what they are. What these tests cannot show is that TensorRT builds a
plan, and that a GPU computes it.
"""

from __future__ import annotations

import gc
import hashlib
import json
import threading
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from rfvit_rt.contract import ModelFile
from rfvit_rt.engines import load_engine, prove_iq
from rfvit_rt.engines.graph import read_graph
from rfvit_rt.engines.iq_model import IQModel, iq_words
from rfvit_rt.engines.plans import plan_path, read_plan, record_path, write_plan
from rfvit_rt.engines.precision import in_precision
from rfvit_rt.errors import EngineError, ModelError

pytest.importorskip("onnxruntime", reason="pip install -e '.[test]'")

from . import pycuda_standin, tensorrt_standin
from .half_precision import run as reference
from .standins import standing_in

SCHEDULES = ("late", "at once", "random")
SIZES = (1, 8, 32)


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """The engine's module on stand-ins; whatever a test does, nothing may be left on the GPU."""
    with standing_in(monkeypatch, tmp_path / "plans") as standins:
        yield standins
        assert standins.machine.is_clean, vars(standins.machine)


class Shown:
    """What a build tells; ends it after a number of steps."""

    def __init__(self, steps: int = 99) -> None:
        self.told: list[tuple[object, ...]] = []
        self.steps = steps

    def start(self, phase, parent, steps):
        self.told.append(("start", phase, parent, steps))

    def step(self, phase, step):
        self.told.append(("step", phase, step))
        self.steps -= 1
        return self.steps > 0

    def finish(self, phase):
        self.told.append(("finish", phase))


def make_plan(standins, model, precision="f32", batches=SIZES, **key):
    """Build a plan and put it where the engine looks for it."""
    made = standins.module.plan_key(model, precision, batches, **key)
    built = standins.module.build_plan(model, made, b"", Shown(), device=f"cuda:{key.get('gpu', 0)}")
    path = plan_path(standins.plans, model.contract.name, precision, made.gpu)
    write_plan(path, made, built.plan)
    return path


# ---- results ----


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_any_number_of_pictures_comes_back_in_order(model, batch, monkeypatch, tmp_path, schedule, precision):
    """Whenever the streams get round to it: nothing may be read too early or overwritten too soon."""
    pictures, widths = batch(45)
    (expected,) = reference(in_precision(read_graph(model), precision), pictures=pictures, bin_widths=widths)
    with standing_in(monkeypatch, tmp_path, schedule=schedule) as gpu:
        make_plan(gpu, model, precision)
        with load_engine(model, "tensorrt", precision=precision) as engine:
            for count in (1, 2, 5, 8, 9, 45):
                found = engine.infer(pictures[:count], widths[:count])
                assert found.dtype == np.float32
                np.testing.assert_allclose(found, expected[:count], atol=1e-5 if precision == "f32" else 1e-3)
            assert engine.precision == precision
        assert gpu.machine.is_clean, vars(gpu.machine)
        assert gpu.machine.pageable_copies == 0


def test_results_are_the_callers_own(gpu, model, batch):
    make_plan(gpu, model)
    with load_engine(model, "tensorrt") as engine:
        first = engine.infer(*batch(20))
        kept = first.copy()
        engine.infer(*batch(33, seed=5))
        np.testing.assert_array_equal(first, kept)
        assert engine.infer(*(part[:0] for part in batch(1))).shape == (0, *model.contract.output_shape)


def test_what_pads_a_batch_is_zero_and_nobody_reads_it(gpu, tmp_path):
    """In a graph whose results depend on the whole batch, as no model's do."""
    runner = runner_of(gpu, tmp_path, summing(), batches=(4, 16))
    rng = np.random.default_rng(1)
    for count in (16, 3, 19, 1):
        values = rng.standard_normal((count, 3), np.float32)
        (found,) = runner.run(values)
        sizes = [16] * (count // 16) + ([4] if count % 16 else [])
        parts = np.split(values, np.cumsum(sizes)[:-1])
        np.testing.assert_allclose(found, np.concatenate([part + part.sum(axis=0) for part in parts]), rtol=1e-5)
    runner.close()


def summing():
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("x", "y")]
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [0])
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["sum"], keepdims=1),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    return helper.make_graph(nodes, "summing", ends[:1], ends[1:], [axes])


def runner_of(gpu, folder, graph, batches):
    """A plan of any graph, loaded."""
    file, key = file_of(gpu, folder, graph, batches)
    return gpu.module.PlanRunner(gpu.module.build_plan(file, key, b"", Shown()).plan, key, 0)


def file_of(gpu, folder, graph, batches=SIZES):
    path = folder / "graph.onnx"
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    path.write_bytes(content)
    file = ModelFile(path, None, hashlib.sha256(content).hexdigest())
    return file, gpu.module.plan_key(file, "f32", batches)


@pytest.mark.parametrize("captures", [True, False])
def test_a_cuda_graph_for_every_size_where_the_plan_allows_it(gpu, model, batch, captures):
    gpu.machine.captures = captures
    make_plan(gpu, model)
    with load_engine(model, "tensorrt") as engine:
        assert engine.description.endswith("batches of 1, 8, 32, CUDA graphs" if captures else "no CUDA graphs")
        enqueued, launched = gpu.trt.executions, gpu.machine.graph_launches
        engine.infer(*batch(41))  # 32, 8 and 1
        assert gpu.machine.graph_launches - launched == (3 if captures else 0)
        assert gpu.trt.executions - enqueued == (0 if captures else 3)


def test_sizes_that_round_otherwise_are_left_out(gpu, model, batch):
    """As kernels for large batches do: a picture's result must not depend on its batch."""
    gpu.trt.rounding = lambda size: 1e-3 if size == 32 else 0.0
    make_plan(gpu, model)
    with load_engine(model, "tensorrt") as engine:
        assert "batches of 1, 8," in engine.description
        pictures, widths = batch(33)
        together = engine.infer(pictures, widths)
        np.testing.assert_array_equal(engine.infer(pictures[-1:], widths[-1:]), together[-1:])


def test_results_that_are_no_numbers_are_left_to_who_proves_them(gpu, model):
    gpu.trt.rounding = lambda size: np.nan
    make_plan(gpu, model)
    with pytest.raises(
        ModelError, match=r"deviates from its golden output by nan on TensorRT 11\.4\.0\.106 on Stand-in"
    ):
        load_engine(model, "tensorrt")


def test_one_picture_with_two_results_is_an_error(gpu, tmp_path):
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("x", "y")]
    axis = helper.make_tensor("axis", TensorProto.INT64, [], [0])
    graph = helper.make_graph([helper.make_node("CumSum", ["x", "axis"], ["y"])], "g", ends[:1], ends[1:], [axis])
    runner = runner_of(gpu, tmp_path, graph, batches=(4, 8))
    with pytest.raises(ModelError, match="different results within a batch"):
        runner.keep_equal_sizes([np.ones((1, 3), np.float32)])
    runner.close()


@pytest.mark.parametrize("item_type", ["cf32_le", "ci16_le"])
@pytest.mark.parametrize("rate", [4e6, 20e6])  # one tile, and several
def test_raw_iq(gpu, model, item_type, rate):
    source = IQModel.of(model, rate, item_type)
    make_plan(gpu, model, batches=(1, 2))
    make_plan(gpu, source, batches=(1, 2))
    with load_engine(model, "tensorrt") as engine:
        assert prove_iq(engine, model.contract.spectrogram, rate, item_type) < 1e-3
        samples = np.random.default_rng(1).standard_normal((3, source.contract.spectrogram.window_length(rate), 2))
        iq = (samples * 3000).astype(np.int16) if item_type == "ci16_le" else samples.astype(np.float32)
        iq = iq if item_type == "ci16_le" else iq.view(np.complex64)[..., 0]
        masks, probabilities, pictures = reference(source.to_onnx(), iq=iq_words(iq))
        found = engine.infer_iq(iq, rate)
        np.testing.assert_allclose(found[0], pictures, atol=1e-5)
        np.testing.assert_allclose(found[1], probabilities, atol=1e-4)
        assert (engine.mask_iq(iq, rate) == masks).mean() > 0.999


def test_raw_iq_without_its_plan_names_the_command(gpu, model):
    make_plan(gpu, model)
    with (
        load_engine(model, "tensorrt") as engine,
        pytest.raises(
            EngineError,
            match=r"no TensorRT plan of small-cf32_le-4000000 .* --precision f32 --iq-in 4000000\.0 --item-",
        ),
    ):
        prove_iq(engine, model.contract.spectrogram, 4e6)


# ---- contexts, threads, memory ----


def test_works_from_any_thread_beside_somebody_elses_context(gpu, model, batch):
    make_plan(gpu, model)
    pictures, widths = batch(9)
    results, failures = [], []

    def use(engine, close=False):
        try:
            with pycuda_standin._other_context() as theirs:
                results.append(engine.infer(pictures, widths))
                if close:
                    engine.close()
                assert pycuda_standin._stack() == [theirs]
            assert pycuda_standin._stack() == []
        except BaseException as error:
            failures.append(error)

    engine = load_engine(model, "tensorrt")
    assert pycuda_standin._stack() == []
    use(engine)
    for close in (False, True):
        thread = threading.Thread(target=use, args=(engine, close))
        thread.start()
        thread.join()
    assert not failures
    assert len(results) == 3
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_the_primary_context_of_the_asked_gpu_is_used(gpu, model, batch):
    make_plan(gpu, model, gpu=1)
    with load_engine(model, "tensorrt", device="cuda:1") as engine:
        assert "on Other GPU" in engine.description
        engine.infer(*batch(2))
    with pytest.raises(EngineError, match="there is no TensorRT plan of small for this GPU"):
        load_engine(model, "tensorrt")


def test_our_streams_do_not_wait_for_the_default_one(gpu, model):
    make_plan(gpu, model)
    with load_engine(model, "tensorrt"):
        assert [stream._flags for stream in gpu.machine.streams.values()] == [1, 1, 1]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_too_little_memory_is_an_error_that_leaves_nothing_behind(gpu, model, share):
    make_plan(gpu, model)
    before = gpu.machine.bytes_left
    with load_engine(model, "tensorrt"):
        needed = before - gpu.machine.bytes_left
    gpu.machine.bytes_left = int(needed * share)
    with pytest.raises(EngineError, match=r"the GPU failed \(cuMemAlloc failed: out of memory\); 'rfvit doctor'"):
        load_engine(model, "tensorrt")
    assert gpu.machine.bytes_left == int(needed * share)
    assert gpu.machine.is_clean


def test_after_an_error_nothing_is_under_way(gpu, model, batch):
    gpu.machine.captures = False
    make_plan(gpu, model)
    pictures, widths = batch(41)
    with load_engine(model, "tensorrt") as engine:
        expected = engine.infer(pictures, widths)
        submit, calls = type(engine._runner._slots[0]).submit, []

        def failing(self, *arguments):
            calls.append(id(self))
            gpu.trt.refuse_execution = "an illegal instruction" if len(calls) == 2 else None
            submit(self, *arguments)

        type(engine._runner._slots[0]).submit = failing
        with pytest.raises(EngineError, match=r"TensorRT cannot run the plan \(an illegal instruction\)"):
            engine.infer(pictures, widths)
        assert all(stream._done == stream._queued for stream in gpu.machine.streams.values())
        np.testing.assert_array_equal(engine.infer(pictures, widths), expected)


def test_a_closed_engine_says_so(gpu, model, batch):
    make_plan(gpu, model)
    engine = load_engine(model, "tensorrt")
    engine.close()
    engine.close()
    for call in (lambda: engine.infer(*batch(1)), lambda: engine.infer_iq(np.zeros((1, 5), np.complex64), 4e6)):
        with pytest.raises(EngineError, match="the tensorrt engine is closed"):
            call()


# ---- what is refused ----


def test_no_gpu(gpu, model):
    gpu.machine.failure = "cuInit failed: no CUDA-capable device is detected"
    with pytest.raises(EngineError, match=r"no NVIDIA GPU can be used here \(cuInit failed: no CUDA-capable device"):
        load_engine(model, "tensorrt")


@pytest.mark.parametrize(
    ("device", "says"),
    [
        ("cuda:7", "there is no GPU cuda:7 here, only 2; cuda:0 is the first"),
        ("cpu", "TensorRT runs on NVIDIA GPUs, not on 'cpu'"),
        ("cuda:-1", "not on 'cuda:-1'"),
        ("cuda:1234", "not on 'cuda:1234'"),
    ],
)
def test_no_such_gpu(gpu, model, device, says):
    with pytest.raises(EngineError, match=says):
        load_engine(model, "tensorrt", device=device)


@pytest.mark.parametrize(("device", "number"), [(None, 0), ("cuda", 0), ("CUDA:1", 1), ("1", 1), (":0", 0)])
def test_devices(gpu, device, number):
    assert gpu.module.gpu_number(device) == number


def test_processor_threads(gpu, model):
    with pytest.raises(EngineError, match="uses no processor threads; leave --threads out"):
        load_engine(model, "tensorrt", threads=2)


def test_no_plan_names_the_command_that_builds_it(gpu, model):
    with pytest.raises(
        EngineError, match=r"no TensorRT plan of small .*; build it here with 'rfvit build .*--precision f16'"
    ):
        load_engine(model, "tensorrt")
    with pytest.raises(EngineError, match="--precision bf16'"):
        load_engine(model, "tensorrt", precision="BF16")
    with pytest.raises(EngineError, match="there is no precision 'int8'"):
        load_engine(model, "tensorrt", precision="int8")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_sha256": "0" * 64}, "made from another model file"),
        ({"tensorrt": "11.3.0.99"}, r"made by TensorRT 11\.3\.0\.99, this is 11\.4\.0\.106"),
        ({"gpu": "NVIDIA A100"}, "made for NVIDIA A100"),
        ({"compute_capability": "8.0"}, r"compute capability 8\.0\), this is Stand-in GPU \(9\.0\)"),
        ({"precision": "f16"}, "computes in f16, not in f32"),
    ],
)
def test_a_stale_or_foreign_plan_is_never_run(gpu, model, change, says):
    path = make_plan(gpu, model)
    stored = read_plan(path)
    write_plan(path, replace(stored.key, **change), stored.plan)
    loaded = gpu.trt.loaded
    with pytest.raises(EngineError, match=rf"cannot be run here: .*{says}.*; build it here with 'rfvit build"):
        load_engine(model, "tensorrt")
    assert gpu.trt.loaded == loaded


def test_a_plan_that_is_not_the_one_of_its_record_is_never_run(gpu, model):
    path = make_plan(gpu, model)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(EngineError, match=r"cut short, or was replaced; build it here with"):
        load_engine(model, "tensorrt")
    record_path(path).write_text("{")
    with pytest.raises(EngineError, match=r"record .* is malformed .*; build it here with"):
        load_engine(model, "tensorrt")
    assert gpu.trt.loaded == 0


def test_the_fastest_precision_that_there_is_a_plan_of(gpu, model):
    make_plan(gpu, model, "f32")
    with load_engine(model, "tensorrt") as engine:
        assert engine.precision == "f32"
    make_plan(gpu, model, "f16")
    with load_engine(model, "tensorrt") as engine:
        assert engine.precision == "f16"


def test_a_plan_of_other_shapes_is_refused(gpu, model, promising):
    make_plan(gpu, model)
    other = promising(labels=("background", "LTE", "NR", "WLAN"))
    with pytest.raises(ModelError, match=r"the plan of .* takes and gives .* the contract says .*; build it again"):
        load_engine(other, "tensorrt")


def test_what_tensorrt_refuses_comes_with_its_reason(gpu, model):
    path = make_plan(gpu, model)
    write_plan(path, read_plan(path).key, b"not a plan")
    with pytest.raises(
        EngineError, match=r"TensorRT cannot load the plan \(Serialization assertion .*\); 'rfvit doctor'"
    ):
        load_engine(model, "tensorrt")


@pytest.mark.parametrize("null", [False, True])
def test_an_empty_runtime_is_not_used(gpu, model, null):
    """TensorRT hands one out where the driver is too old for it, and ends the process when it is used or freed.

    So does the real lean runtime 11.4 on a machine without a GPU, and the real bindings on empty libraries raise a
    TypeError: the stand-in follows both.
    """
    make_plan(gpu, model)
    gpu.trt.null = null
    gpu.trt.broken = "CUDA initialization failure with error: 35"
    with pytest.raises(
        EngineError, match=r"TensorRT cannot start its runtime \(CUDA initialization failure with error: 35\)"
    ):
        load_engine(model, "tensorrt")
    with pytest.raises(EngineError, match="TensorRT cannot start its builder"):
        make_plan(gpu, model)
    gc.collect()
    assert gpu.trt.freed_empty == 0


# ---- building ----


def test_a_build_tells_how_far_it_is(gpu, model):
    shown = Shown()
    gpu.module.build_plan(model, gpu.module.plan_key(model, "f32", SIZES), b"", shown)
    assert shown.told[:3] == [
        ("start", "Building Engine", None, 2),
        ("start", "Timing", "Building Engine", 3),
        ("step", "Timing", 0),
    ]
    assert shown.told[-1] == ("finish", "Building Engine")


def test_a_build_can_be_ended(gpu, model):
    assert gpu.module.build_plan(model, gpu.module.plan_key(model, "f32", SIZES), b"", Shown(steps=2)) is None


@pytest.mark.parametrize("portable", [False, True])
def test_what_the_builder_is_told(gpu, model, portable):
    names = tensorrt_standin.BuilderFlag
    make_plan(gpu, model, portable=portable)
    wanted = {names.DISTRIBUTIVE_INDEPENDENCE}
    assert gpu.trt.flags == (wanted | {names.VERSION_COMPATIBLE, names.EXCLUDE_LEAN_RUNTIME} if portable else wanted)


def test_the_graph_has_the_types_and_the_profile_the_sizes(gpu, model):
    plan = read_plan(make_plan(gpu, model, "f16", batches=(2, 4, 8, 16))).plan
    _, about, graph = plan.split(b"\n", 2)
    assert graph == in_precision(read_graph(model), "f16")
    steps, bins = model.contract.spec.n_steps, model.contract.spec.n_bins
    assert json.loads(about)["profile"] == {
        "pictures": [[size, steps, bins] for size in (2, 8, 16)],
        "bin_widths": [[size] for size in (2, 8, 16)],
    }


def test_timings_of_this_gpu_are_used_again_and_others_are_not(gpu, model):
    key = gpu.module.plan_key(model, "f32", SIZES)
    built = gpu.module.build_plan(model, key, b"", Shown())
    assert gpu.trt.reused_timings == 0
    again = gpu.module.build_plan(model, key, built.timings, Shown())
    assert gpu.trt.reused_timings == 1
    other = gpu.module.build_plan(model, gpu.module.plan_key(model, "f32", SIZES, gpu=1), b"", Shown(), device="cuda:1")
    for foreign in (other.timings, b"rubbish"):
        assert gpu.module.build_plan(model, key, foreign, Shown()).timings == again.timings
    assert gpu.trt.reused_timings == 1


def test_a_graph_that_tensorrt_cannot_read(gpu, tmp_path):
    graph = summing()
    graph.node[0].domain, graph.node[0].name = "our.own", "first"
    file, key = file_of(gpu, tmp_path, graph)
    with pytest.raises(
        ModelError, match=r"cannot read .*graph\.onnx \(No importer registered for op: ReduceSum, at first\)"
    ):
        gpu.module.build_plan(file, key, b"", Shown())


def test_a_graph_that_tensorrt_cannot_build(gpu, model):
    gpu.trt.no_plan = "Could not find any implementation for node {ForeignNode}"
    with pytest.raises(
        ModelError, match=r"cannot build a plan of .* \(Could not find any implementation .*try another --prec"
    ):
        make_plan(gpu, model)


# ---- plans for other releases, and the lean runtime ----


def with_lean_libraries(monkeypatch, gpu, folder, release="11.4.0.106"):
    """As the package tensorrt-lean installs them."""
    (folder / "libnvinfer_lean.so.11").touch()
    monkeypatch.setattr(
        gpu.module, "packages_distributions", lambda: {"tensorrt_lean_libs": ["tensorrt_lean_cu13_libs"]}
    )
    monkeypatch.setattr(gpu.module, "version", {"tensorrt_lean_cu13_libs": release}.__getitem__)
    monkeypatch.setattr(gpu.module, "files", {"tensorrt_lean_libs": folder}.__getitem__)


def test_a_portable_plan_runs_in_the_lean_runtime_that_the_full_one_loads(gpu, model, monkeypatch, tmp_path, batch):
    make_plan(gpu, model, portable=True)
    with pytest.raises(
        EngineError, match=r"TensorRT 11\.4\.0\.106, here is none; pip install tensorrt-lean==11\.4\.0\.106"
    ):
        load_engine(model, "tensorrt")
    with_lean_libraries(monkeypatch, gpu, tmp_path)
    with load_engine(model, "tensorrt") as engine:
        engine.infer(*batch(3))


def test_an_earlier_releases_portable_plan_runs_with_its_lean_runtime(gpu, model, monkeypatch, tmp_path):
    path = make_plan(gpu, model, portable=True)
    stored = read_plan(path)
    write_plan(path, replace(stored.key, tensorrt="11.2.1.2"), stored.plan)
    with_lean_libraries(monkeypatch, gpu, tmp_path)
    with pytest.raises(
        EngineError, match=r"needs the lean runtime of TensorRT 11\.2\.1\.2, here is 11\.4\.0\.106; pip inst"
    ):
        load_engine(model, "tensorrt")
    with_lean_libraries(monkeypatch, gpu, tmp_path, "11.2.1.2")
    load_engine(model, "tensorrt").close()
    write_plan(path, replace(stored.key, tensorrt="11.5.0.1"), stored.plan)
    with pytest.raises(EngineError, match=r"made by TensorRT 11\.5\.0\.1, this is 11\.4\.0\.106"):
        load_engine(model, "tensorrt")


def test_the_lean_runtime_alone_runs_portable_plans_and_no_others(monkeypatch, tmp_path, model, batch):
    with standing_in(monkeypatch, tmp_path) as full:
        path = make_plan(full, model, portable=True)
        plain = read_plan(make_plan(full, model, "f16"))
    pictures, widths = batch(9)
    (expected,) = reference(read_graph(model), pictures=pictures, bin_widths=widths)
    with standing_in(monkeypatch, tmp_path, lean=True) as gpu:
        assert gpu.module.trt.__name__ == "tensorrt_lean"
        initialise = tensorrt_standin.Runtime.__init__

        def lean(self, logger):
            initialise(self, logger)
            self._is_lean = True

        monkeypatch.setattr(tensorrt_standin.Runtime, "__init__", lean)
        with load_engine(model, "tensorrt", precision="f32") as engine:
            np.testing.assert_allclose(engine.infer(pictures, widths), expected, atol=1e-5)
        with pytest.raises(
            EngineError,
            match=r"not made version-compatible; build it with 'rfvit build .* --version-compatible' where all",
        ):
            load_engine(model, "tensorrt", precision="f16")
        with pytest.raises(EngineError, match="the lean runtime of TensorRT builds no plans"):
            gpu.module.build_plan(model, plain.key, b"", Shown())
        assert path.exists()
        assert gpu.machine.is_clean


def test_the_graph_of_a_test_is_what_onnx_says(gpu, tmp_path):
    """The stand-in refuses what the checker refuses, or these tests would show little."""
    file, _ = file_of(gpu, tmp_path, summing())
    onnx.checker.check_model(onnx.load_model_from_string(file.path.read_bytes()), full_check=True)
