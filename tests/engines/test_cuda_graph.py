# SPDX-License-Identifier: Apache-2.0
"""CUDA graphs through the driver's C interface: which calls are made, with what, and what becomes of their failures.

The driver is a stand-in in C that only notes its calls. Where a CUDA toolkit is installed, it is compiled against the
real cuda.h, so that wrong arguments do not compile.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from rfvit_rt.engines.cuda_graph import CudaGraph, CudaGraphError

STREAM = 0x7FFF_1234_5678_9AB0  # more than 32 bits, as handles are

DRIVER = r"""
#if __has_include(<cuda.h>)
#include <cuda.h>
#else
typedef int CUresult;
typedef int CUstreamCaptureMode;
typedef struct a *CUstream;
typedef struct b *CUgraph;
typedef struct c *CUgraphExec;
#endif
#include <stdio.h>
#include <string.h>

static char calls[4096];
static const char *failing = "";
static CUresult note(const char *name, const void *a, const void *b) {
    sprintf(calls + strlen(calls), "%s %p %p\n", name, a, b);
    return (CUresult)(strcmp(name, failing) ? 0 : 900);
}
const char *noted(void) { return calls; }
void start_over(const char *name) { failing = strdup(name); calls[0] = 0; }

CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode) {
    return note("begin", stream, (void *)(long)mode);
}
CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
    *graph = (CUgraph)0x123456789000;
    return note("end", stream, 0);
}
CUresult cuGraphInstantiateWithFlags(CUgraphExec *executable, CUgraph graph, unsigned long long flags) {
    *executable = (CUgraphExec)0x987654321000;
    return note("instantiate", graph, (void *)flags);
}
CUresult cuGraphDestroy(CUgraph graph) { return note("destroy", graph, 0); }
CUresult cuGraphLaunch(CUgraphExec executable, CUstream stream) { return note("launch", executable, stream); }
CUresult cuGraphExecDestroy(CUgraphExec executable) { return note("destroy-executable", executable, 0); }
CUresult cuGetErrorString(CUresult error, const char **text) {
    *text = error == 900 ? "operation not permitted when stream is capturing" : 0;
    return (CUresult)(*text ? 0 : 1);
}
"""
BEGIN, END = f"begin {STREAM:#x} 0x1", f"end {STREAM:#x} (nil)"
INSTANTIATE, DESTROY = "instantiate 0x123456789000 (nil)", "destroy 0x123456789000 (nil)"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("the stand-in for the driver is compiled with gcc")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(DRIVER)
    nvcc = shutil.which("nvcc")
    places = [Path("/usr/local/cuda/include"), *([Path(nvcc).resolve().parents[1] / "include"] if nvcc else [])]
    include = [f"-I{place}" for place in places if (place / "cuda.h").exists()]
    target = folder / "libcuda.so"
    command = ["gcc", "-shared", "-fPIC", "-Wall", "-Werror", *include, "-o", str(target), str(folder / "driver.c")]
    subprocess.run(command, check=True)
    return str(target)


@pytest.fixture
def driver(library):
    """What the driver noted, and a call to have it fail."""
    handle = ctypes.CDLL(library)
    handle.noted.restype = ctypes.c_char_p
    handle.start_over(b"")
    return handle


def noted(driver):
    return driver.noted().decode().splitlines()


def test_work_is_captured_once_and_launched_again_and_again(driver, library):
    enqueued = []
    graph = CudaGraph(STREAM, lambda: enqueued.append(noted(driver)), library)
    assert enqueued == [[BEGIN]]  # between begin and end
    assert noted(driver) == [BEGIN, END, INSTANTIATE, DESTROY]
    graph.launch(STREAM)
    graph.launch(STREAM + 16)
    graph.close()
    graph.close()
    assert noted(driver)[4:] == [
        f"launch 0x987654321000 {STREAM:#x}",
        f"launch 0x987654321000 {STREAM + 16:#x}",
        "destroy-executable 0x987654321000 (nil)",
    ]
    assert len(enqueued) == 1


@pytest.mark.parametrize(
    ("failing", "calls", "name"),
    [
        ("begin", [BEGIN], "cuStreamBeginCapture_v2"),
        ("end", [BEGIN, END], "cuStreamEndCapture"),
        ("instantiate", [BEGIN, END, INSTANTIATE, DESTROY], "cuGraphInstantiateWithFlags"),
    ],
)
def test_a_capture_that_fails_leaves_nothing_behind(driver, library, failing, calls, name):
    driver.start_over(failing.encode())
    with pytest.raises(CudaGraphError, match=rf"{name}: operation not permitted when stream is capturing \(900\)"):
        CudaGraph(STREAM, lambda: None, library)
    assert noted(driver) == calls


def test_work_that_fails_ends_the_capture(driver, library):
    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        CudaGraph(STREAM, fail, library)
    assert noted(driver) == [BEGIN, END, DESTROY]


def test_a_launch_that_fails(driver, library):
    graph = CudaGraph(STREAM, lambda: None, library)
    driver.start_over(b"launch")
    with pytest.raises(CudaGraphError, match="cuGraphLaunch: operation not permitted"):
        graph.launch(STREAM)
