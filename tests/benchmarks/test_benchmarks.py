"""The benchmarks keep their time limit, name missing results, and read traces with unknown kernels."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import by_worth
import comparisons
import epoch
import pages
import where_time_goes
from colabcnn.data.split import split_data
from colabcnn.data.synthetic import load_synthetic
from colabcnn.store.history import read_history
from support.shared_files import COMPLETE
from where_time_goes import Event

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
# A benchmark with quick comparisons that writes its page to a given folder.
SCRIPT = """
import os, subprocess, sys, time
from pathlib import Path
sys.path.insert(0, {benchmarks!r})
import pages, processes

def hang(options):
    Path({folder!r}, "child").write_text(str(subprocess.Popen(["sleep", "600"]).pid))
    time.sleep(600)

def fail(options):
    raise ValueError("no such | device")

def flags(options):
    return {{"flags": os.environ["XLA_FLAGS"]}}

def page(rows, options):
    return ["# page"] + [f"{{name}}: {{pages.missing(row) or row}}" for name, row in rows.items()]

comparisons = {{
    "device": lambda options: {{"device": "A/B ../GPU", "precision": "float32", "cpu": True}},
    "quick": lambda options: {{"value": 1}},
    "hang": hang,
    "fail": fail,
    "flags": flags,
    "never": lambda options: {{"value": 2}},
}}
processes.PAGES = Path({folder!r})
processes.SHARE_OF_REMAINING = processes.SHARE_OF_ALL = {share}
order = lambda device, options: list(comparisons)[1:]
processes.main(processes.Benchmark(__file__, "A test.", comparisons, {{"": page}}, order, {{"flags": "--a"}}))
"""


@pytest.fixture
def start(tmp_path):
    """Return a function that starts the benchmark of `SCRIPT` in a process; a comparison gets a share of the time."""
    script = tmp_path / "script.py"

    with contextlib.ExitStack() as stack:

        def start(*options, share):
            script.write_text(SCRIPT.format(benchmarks=str(BENCHMARKS), folder=str(tmp_path), share=share))
            process = subprocess.Popen([sys.executable, script, *options], stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def lines_of(page):
    return dict(line.split(": ", 1) for line in page.read_text().splitlines()[1:])


def ends(pid):
    """Return whether a process that would run for minutes ends now."""
    for _ in range(100):
        try:
            if " Z " in Path(f"/proc/{pid}/stat").read_text():
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.1)
    return False


def test_hanging_and_failing_comparisons_do_not_stop_the_others(tmp_path, start):
    process = start("--seconds", "48", share=1 / 8)
    process.communicate(timeout=300)
    assert process.returncode == 0
    lines = lines_of(tmp_path / "a-b-gpu-float32.md")
    assert lines["quick"] == "{'value': 1}"
    assert lines["hang"].startswith("not yet measured: stopped after ")
    assert ends((tmp_path / "child").read_text())
    assert lines["fail"] == "not yet measured: ValueError: no such / device"
    assert "--a" in lines["flags"]
    assert lines["never"] == "{'value': 2}"
    assert list(lines) == ["device", "quick", "hang", "fail", "flags", "never"]


def test_without_time_left_nothing_more_is_started(tmp_path, start):
    began = time.monotonic()
    process = start("--seconds", "10", share=1)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert time.monotonic() - began < 30  # A comparison would run for ten minutes.
    lines = lines_of(tmp_path / "a-b-gpu-float32.md")
    assert lines["hang"].startswith("not yet measured: stopped after ")
    assert {lines[name] for name in ("fail", "flags", "never")} == {"not yet measured"}


def test_page_is_written_early_and_names_missing_results(tmp_path, start):
    process = start("--seconds", "600", share=1)
    deadline = time.monotonic() + 60
    while not (tmp_path / "child").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    lines = lines_of(tmp_path / "a-b-gpu-float32.md")
    assert lines["quick"] == "{'value': 1}"
    assert {lines[name] for name in ("hang", "fail", "flags", "never")} == {"not yet measured"}
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
    assert ends((tmp_path / "child").read_text())


def test_pages_of_two_precisions_have_different_names():
    assert pages.page_name("AMD EPYC, 2 cores", "mixed_bfloat16") == "amd-epyc-2-cores-mixed-bfloat16.md"
    assert pages.page_name("NVIDIA H100 80GB HBM3", "float32", "where-time-goes") == (
        "nvidia-h100-80gb-hbm3-float32-where-time-goes.md"
    )
    assert pages.page_name("../", "float32") == "device-float32.md"
    assert len(pages.page_name("x" * 500, "float32")) < 120


@pytest.mark.parametrize("device", [{"cpu": True, "device": "A CPU"}, {"cpu": False, "device": "NVIDIA H100"}])
def test_page_of_an_epoch_is_complete_if_results_are_missing(device):
    device |= {"bfloat16": True, "versions": {"jax": "0.11.2"}, "commit": "a", "platform": "Linux", "gflop_an_image": 1}
    device |= {
        "precision": "mixed_bfloat16",
        "execution": "Execution()",
        "steps_a_call": 64,
        "gflops": {"mixed_bfloat16": 500_000},
    }
    options = SimpleNamespace(images=50_000, pairs=7, seconds=60, data="DATA")
    names = epoch.order(device, options)
    measured = {"precision": "bfloat16", "steps_a_call": 64, "training": 0.25, "validation": 0.05, "memory": None}
    measured |= {"images": 50_000, "epochs": 7, "plan": 0.01, "rest": 0.01}
    measured |= {"checkpoint": {"read": 0.1, "write": 0.2, "megabytes": 48}}
    rows = {"device": device, **{name: {} for name in names}}
    assert len([line for line in epoch.page(rows, options) if "not yet measured" in line]) == len(names)
    rows |= {names[0]: measured, names[1]: {"failed": "out of memory"}}
    page = epoch.page(rows, options)
    assert names[0] == "ours in bfloat16"
    (row,) = (line for line in page if line.startswith("| ours in bfloat16"))
    share = ("20 %" if device["device"] == "NVIDIA H100" else "") if not device["cpu"] else ""
    assert row.split(" | ")[3:8] == ["**0.25 s**", "0.3 s", "200,000", "40 %", share]
    assert any("not yet measured: out of memory" in line for line in page)
    assert len([line for line in page if "not yet measured" in line]) == len(names) - 1
    assert epoch.by_worth.trace_page(rows, options) is None


def test_epoch_of_ours_is_timed_in_its_parts_and_recorded_as_run_does(tmp_path):
    split = split_data(*load_synthetic(64, 40))
    epoch = comparisons.our_epoch(split, "float32", tmp_path, COMPLETE)
    calls, (span,) = by_worth.epochs_in_parts(epoch, calls=4, options=SimpleNamespace(seconds=None, pairs=1))
    assert calls == 4
    assert all(span[part] > 0 for part in ("training", "validation", "plan", "rest"))
    assert epoch() > 0
    assert read_history(tmp_path / "history.csv")["epoch"] == [1, 2, 3, 4, 5]
    from recording import Spans  # It imports Keras.

    epoch([span := Spans(calls=2)])
    assert span._calls == 2
    assert set(by_worth.checkpoint_of(epoch.model, tmp_path)) == {"read", "write", "megabytes"}


def test_every_name_in_the_order_is_a_comparison():
    known = {*epoch.COMPARISONS, *epoch.by_worth.MEASUREMENTS}
    for cpu in (True, False):
        device = {"cpu": cpu, "precision": "mixed_float16", "steps_a_call": 64}
        names = epoch.order(device, SimpleNamespace(seconds=60))
        assert set(names) <= known
        assert "64 steps a call" not in names


KERNELS = {
    "sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64": "convolution, forward",
    "sm80_xmma_dgrad_implicit_gemm_indexed_bf16": "convolution, gradient of the inputs",
    "cutlass__5x_cudnn::Kernel<cutlass_tensorop_bf16_s16816wgrad_optimized>": "convolution, gradient of the kernels",
    "void cudnn::ops::nchwToNhwcKernel<float>": "convolution, change of layout",
    "nvjet_tst_128x64_bf16": "matrix product",
    "input_convert_reduce_fusion_3": "reductions (BatchNorm, loss, bias), with what is fused",
    "loop_convert_fusion": "elementwise, fused",
    "MemcpyD2D": "copies and memory set",
    "something | new_17": "something new",
}


def gpu_trace(folder, line):
    """Write a trace of a GPU: each of `KERNELS` for 90 µs, 10 µs apart, and 1 ms later one known by its operation."""
    from jax.profiler import ProfileData

    names = [*KERNELS, "kernel"]
    metadata = "".join(
        f"event_metadata {{ key: {number} value {{ id: {number} name: {json.dumps(name)} }} }}"
        for number, name in enumerate(names, 1)
    )
    starts = [100 * number for number in range(len(KERNELS))] + [100 * len(KERNELS) - 10 + 1000]
    events = [
        f"metadata_id: {number} offset_ps: {start * 10**6} duration_ps: {90 * 10**6}"
        for number, start in enumerate(starts, 1)
    ]
    events[-1] += ' stats { metadata_id: 1 str_value: "cudnn-conv-bw-filter.2" }'
    timeline = "".join(f"events {{ {event} }}" for event in events)
    text = f"""
        planes {{ name: "/host:CPU" lines {{ name: "python" }} }}
        planes {{
            name: "/device:GPU:0"
            lines {{ name: "XLA Modules" events {{ metadata_id: 1 duration_ps: 9000000000 }} }}
            lines {{ name: "{line}" {timeline} }}
            {metadata}
            stat_metadata {{ key: 1 value {{ id: 1 name: "hlo_op" }} }}
        }}"""
    path = folder / "host.xplane.pb"
    path.write_bytes(ProfileData.text_proto_to_serialized_xspace(text))
    return path


def test_gpu_kernels_are_listed_by_kind_and_unknown_ones_by_name(tmp_path):
    first, *lines = where_time_goes.report(gpu_trace(tmp_path, "Stream #13(Compute)"))
    assert first.startswith("10 kernels and copies on /device:GPU:0 in 0.002 s, 90.0 µs each")
    rows = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines[3:]]
    table = {cells[0]: cells[1:] for cells in rows}
    assert set(table) - {row for row in table if row.startswith("nothing")} == set(KERNELS.values())
    assert table["nothing, gaps under 20 µs: launches"][:2] == ["8", "0.0001 s"]
    assert table["nothing, longer gaps: waits for the host"][:2] == ["1", "0.0010 s"]
    assert table["convolution, gradient of the kernels"][:2] == ["2", "0.0002 s"]
    assert table["something new"][0] == "1"
    assert sum(float(cells[-1].removesuffix(" %")) for cells in table.values()) == pytest.approx(100, abs=0.5)


def test_unknown_lines_are_read_too(tmp_path):
    lines = where_time_goes.report(gpu_trace(tmp_path, "a new kind of line"))
    assert any(line.startswith("| matrix product | 1 |") for line in lines)


def test_error_for_a_trace_without_operations_names_its_planes(tmp_path):
    from jax.profiler import ProfileData

    path = tmp_path / "host.xplane.pb"
    path.write_bytes(ProfileData.text_proto_to_serialized_xspace('planes { name: "/device:NEW:0" }'))
    (line,) = where_time_goes.report(path)
    assert "/device:NEW:0" in line


def test_kernels_at_the_same_time_leave_no_gap():
    events = [
        Event(0, 100, "a"),
        Event(50, 10, "b"),
        Event(90, 30, "c"),
        Event(150, 10, "d"),
    ]
    assert where_time_goes.gaps_between(events) == [30]


def test_time_of_an_operation_excludes_inner_operations():
    events = [
        Event(0, 100, "outer"),
        Event(10, 30, "inner"),
        Event(200, 5, "outer"),
    ]
    assert sorted(where_time_goes.own_times(events)) == [("inner", 30), ("outer", 5), ("outer", 70)]
