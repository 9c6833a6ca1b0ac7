"""`lglstm bench`: counts, ratios, equal numbers, a tiny run of each command; judges no times."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from benchmarks import blas_clock, counts, implementations, scale, stack, timing
from benchmarks.breakdown import breakdown
from benchmarks.counts import StackSize
from benchmarks.memory import MIB
from benchmarks.worker import Worker, WorkerError
from lglstm.cli.main import main
from lglstm.common.errors import InputError
from lglstm.layers import equations

SIZE = StackSize(
    batch=2, height=5, width=4, channels=7, hidden=3, neighbors=4, grid=2, classes=3, layers=2
)
HAS_TORCH = importlib.util.find_spec("torch") is not None


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", *arguments])


# --- statistics -------------------------------------------------------------------------------


def test_spread_is_median_and_quartiles() -> None:
    assert timing.spread([5.0, 1.0, 2.0, 4.0, 3.0]) == timing.Spread(3, 2, 4)
    assert timing.spread([7.0]) == timing.Spread(7, 7, 7)


def test_ratios_are_taken_within_rounds() -> None:
    """A machine that slows down for a round must not touch the ratio."""
    slow = [{"forward": 2 * s, "backward": 4 * s} for s in (1.0, 10.0, 3.0)]
    fast = [{"forward": s, "backward": s} for s in (1.0, 10.0, 3.0)]
    assert timing.ratio(slow, fast) == timing.Spread(3, 3, 3)
    assert timing.ratio([None, slow[1], None], fast) == timing.Spread(3, 3, 3)


def test_all_take_turns_and_slow_ones_sit_out() -> None:
    order: list[str] = []

    def runs(name: str):
        return lambda: order.append(name) or {"forward": float(len(order))}

    results = timing.rounds({n: runs(n) for n in "abc"}, 4, {"c": 2})
    assert "".join(order) == "ab" + "bca" + "ab" + "abc"
    assert [r is not None for r in results["c"]] == [False, True, False, True]
    assert all(r is not None for name in "ab" for r in results[name])


def test_no_round_is_begun_that_would_end_too_late() -> None:
    def work() -> dict[str, float]:
        time.sleep(0.05)
        return {"forward": 1.0}

    late = timing.rounds({"a": work, "b": work}, 5, deadline=time.monotonic() + 0.15)
    assert [len(measured) for measured in late.values()] == [1, 1]
    assert len(timing.rounds({"a": work}, 2)["a"]) == 2


def test_fit_of_a_line_and_of_what_is_none() -> None:
    x = [1, 2, 4, 8]
    line = scale.fit(x, [3 + 2 * v for v in x], 1)
    assert np.allclose(line.coefficients, (2, 3))
    assert math.isclose(line.r_squared, 1) and line.deviation < 1e-9
    assert scale.fit(x, [v**3 for v in x], 1).deviation > 0.5


# --- counts -----------------------------------------------------------------------------------


def test_operations_are_those_of_the_python_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every product of the reading version, counted as it runs, forward and backward."""
    done = 0

    def counting(function, flop):
        def wrapped(a, b):
            nonlocal done
            done += flop(a, b)
            return function(a, b)

        return wrapped

    maps = lambda w, x: 2 * w.size * x.shape[0] * math.prod(x.shape[2:])  # noqa: E731
    outer = lambda d, x: 2 * d.shape[0] * d.shape[1] * x.shape[1] * math.prod(x.shape[2:])  # noqa: E731
    monkeypatch.setattr(equations, "matmul_maps", counting(equations.matmul_maps, maps))
    monkeypatch.setattr(equations, "outer_maps", counting(equations.outer_maps, outer))
    s, rng = SIZE, np.random.default_rng(0)
    options = equations.LGLSTMOptions(
        num_output=s.hidden, neighbors=s.neighbors, global_grid=s.grid, share_spatial=True
    )
    x = rng.standard_normal((s.batch, s.channels, s.height, s.width))
    weight = rng.standard_normal((s.lstms, 3 * s.hidden, s.channels))
    first = equations.transition_forward(options, x, weight)
    assert done == counts.transition_flop(s).forward
    done = 0
    equations.transition_backward(
        options, first, x, weight, first.local, first.memory, first.global_
    )
    assert done == counts.transition_flop(s).backward

    # The products with the global vectors are plain ones there: counted apart.
    of_global = 2 * s.batch * 2 * 4 * s.hidden * s.global_
    spatial, depth = rng.standard_normal((2, 4 * s.hidden, s.global_ + s.local))
    bottoms, done = (first.local, first.memory, first.global_), 0
    second = equations.lg_lstm_forward(options, *bottoms, spatial[None], depth)
    assert done + of_global == counts.layer_flop(s).forward
    done = 0
    equations.lg_lstm_backward(
        options, second, first.local, first.global_, spatial[None], depth,
        second.local, second.memory, second.global_,
    )  # fmt: skip
    assert done + 2 * of_global == counts.layer_flop(s).backward


def test_counts_of_the_paper_s_sizes() -> None:
    """65 and 95 GFLOP at 41 × 41; bytes as the header of the C++ layers states them."""
    size = StackSize()
    assert round(counts.stack_flop(size).total / 1e9) == 66
    assert round(counts.stack_flop(size, tiled=True).total / 1e9) == 96
    one, two = (counts.cells_bytes(replace(size, layers=n)) for n in (1, 2))
    assert (two.forward - one.forward) / (4 * size.positions) == 2752
    assert (two.backward - one.backward) / (4 * size.positions) == 4992


def test_memory_that_is_needed_is_that_of_the_blobs() -> None:
    s = SIZE
    tops = 2 * s.positions * s.local + s.batch * s.hidden * s.grid**2
    gates = s.positions * (3 * s.local + s.layers * 8 * s.hidden)
    assert counts.needed_bytes(s) == 4 * ((s.layers + 1) * 2 * tops + gates)


# --- implementations --------------------------------------------------------------------------


@pytest.mark.slow
def test_the_clock_sees_every_product_of_the_cpp_layers(tmp_path: Path) -> None:
    """Operations noted inside Caffe's layers are those counted; the machine repeats the same."""
    library = blas_clock.compiled(tmp_path)
    if library is None:
        pytest.skip("needs a C compiler")
    with Worker("benchmarks.machine:Machine", 1, 64, MIB, threads=1) as best:
        environment = blas_clock.environment(library, best.libraries())
        target = "benchmarks.caffe_stack:CaffeStack"
        with Worker(target, "caffe", threads=1, environment=environment) as worker:
            worker.build(SIZE)
            measured = worker.run()
            products = worker.products()
        best.load(products)
        assert set(best.run()) == {"square", "copy", "replay"}
        rates = best.rates()
    assert sum(p.flop for p in products) == rates["replay"] == counts.lstm_flop(SIZE).total
    assert rates["square"] == 2 * 64**3 and rates["copy"] == 2 * MIB
    for way in ("forward", "backward"):
        assert 0 < measured[f"products_{way}"] < measured[f"lstm_{way}"] < measured[way]


def test_breakdown_of_known_seconds() -> None:
    """Products at half the machine's rate, all else twice as slow as copying, memory 1.25 times."""
    flop, moved = counts.lstm_flop(SIZE), counts.cells_bytes(SIZE)
    rates = {"square": 10**9, "copy": 10**9, "replay": flop.total}
    limit = {"square": 1.0, "copy": 0.5, "replay": flop.total / 0.8e9}
    run = {}
    for way in ("forward", "backward"):
        run[f"products_{way}"] = getattr(flop, way) / 0.5e9
        run[f"lstm_{way}"] = run[f"products_{way}"] + 2 * getattr(moved, way) / 2e9
    needed, around = counts.needed_bytes(SIZE), counts.surrounding_bytes(SIZE)
    peak = (1.25 * needed + around) / MIB
    found = breakdown(SIZE, [run, run], [limit, limit], rates, peak)
    for way in ("forward", "backward", "both"):
        assert math.isclose(found["products"][way]["of_gemm"]["median"], 0.5)
        assert math.isclose(found["cells"][way]["times_copy"]["median"], 2)
    assert math.isclose(found["alone"]["of_gemm"]["median"], 0.8)
    assert math.isclose(found["alone"]["inside"]["median"], 0.5 / 0.8)
    assert math.isclose(found["memory"]["ratio"], 1.25)


def test_an_implementation_with_other_numbers_is_refused() -> None:
    right = {"score": np.array([1.0, 2.0])}
    label = {"a": "A", "b": "B"}.get
    implementations.check_equal({"a": right, "b": {"score": np.array([1.0, 2.0001])}}, label)
    for wrong in ([1.0, 2.1], [1.0, np.nan], [1.0, 2.0, 3.0]):
        with pytest.raises(InputError, match="B does not compute what A computes: score differs"):
            implementations.check_equal({"a": right, "b": {"score": np.array(wrong)}}, label)


def test_a_worker_passes_on_what_goes_wrong() -> None:
    target = "benchmarks.caffe_data:CaffeData"
    with Worker(target, 0, threads=1) as worker:
        with pytest.raises(WorkerError, match="FileNotFoundError"):
            worker.build(Path("missing.prototxt"), None)
        with pytest.raises(WorkerError, match="AttributeError"):
            worker.no_such_method()
        worker._process.kill()
        with pytest.raises(WorkerError, match="it was killed"):
            worker.run()


# --- commands ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_stack(tmp_path: Path) -> None:
    """All but the compiled implementation, which needs a minute, compute the same; measured."""
    keys = ["cpp", "python"] + (["literal", "factored"] if HAS_TORCH else [])
    picture = tmp_path / "stack.png"
    run = bench(
        "stack", "--quick", "--repeats", "2", "--threads", "1", "--implementations", ",".join(keys),
        "--json", "--output", str(picture),
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    result = json.loads(run.stdout)
    assert result["machine"]["threads"] == 1 and set(result["versions"]) == set(keys)
    [case] = result["cases"]
    assert [row["key"] for row in case["implementations"]] == keys
    size = StackSize(**case["size"])
    for row in case["implementations"]:
        assert row["rounds"] == (1 if row["key"] == "python" else 2)
        flop = counts.stack_flop(size, tiled=row["key"] == "literal").total
        assert math.isclose(row["gflop"], flop / 1e9)
        assert row["total_ms"]["low"] <= row["total_ms"]["median"] <= row["total_ms"]["high"]
    assert case["implementations"][0]["ratio"] == {"median": 1, "low": 1, "high": 1}
    assert picture.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_net() -> None:
    """Loss, gradients and scores of the demo's net agree in Caffe and PyTorch; parts add up."""
    run = bench(
        "net", "--quick", "--task", "train", "--repeats", "1", "--threads", "1", "--json",
        "--implementations", "stock,torch" if HAS_TORCH else "stock",
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    result = json.loads(run.stdout)
    [case] = result["cases"]
    assert (case["model"], case["task"], case["batch"]) == ("demo", "train", 8)
    caffe = case["implementations"][0]
    parts = sum(part["median"] for part in caffe["parts_ms"].values())
    passes = [caffe[f"{way}_ms"]["median"] for way in ("forward", "backward")]
    assert math.isclose(parts, sum(passes), rel_tol=1e-6) and caffe["update_ms"]["median"] > 0
    assert math.isclose(caffe["total_ms"]["median"], sum(passes) + caffe["update_ms"]["median"])
    assert result["compared_with"] == ("torch" if HAS_TORCH else "stock")


@pytest.mark.slow
def test_infer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caffe's engines and ONNX Runtime agree on an image; a package that is missing is named."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        implementations.importlib.util, "find_spec", lambda n: None if n == "openvino" else find(n)
    )
    run = bench(
        "infer", "--quick", "--threads", "1", "--json",
        "--implementations", "stock,onednn_bf16,onnxruntime,openvino_bf16",
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    stock, bf16, onnx, openvino = json.loads(run.stdout)["implementations"]
    assert stock["score_difference"] == 0 and stock["same_label"] == 1
    assert onnx["score_difference"] < 1e-4 and onnx["total_ms"]["median"] > 0
    assert bf16["score_difference"] < 0.1 and bf16["same_label"] > 0.9
    timed = sorted((stock, bf16, onnx), key=lambda row: row["total_ms"]["median"])
    assert [row["rank"] for row in timed] == [1, 2, 3] and "rank" not in openvino
    assert openvino["left_out"] == "openvino is not installed: .venv/bin/pip install openvino"


@pytest.mark.slow
def test_too_little_memory_for_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each implementation is then started for every run; what is measured is the same."""
    monkeypatch.setattr(implementations, "available_mib", lambda: 0.0)
    started = []
    start = implementations.Implementation.start
    monkeypatch.setattr(
        implementations.Implementation,
        "start",
        lambda self, *more: started.append(self.key) or start(self, *more),
    )
    sizes = stack.choose((), (1,), quick=True)
    chosen = stack.choose_implementations("cpp,python")
    result = stack.run(sizes, chosen, repeats=2, threads=1, limits=stack.QUICK_LIMITS)
    assert started == ["cpp", "python", "cpp", "python", "cpp"]
    [case] = result["cases"]
    assert case["one_at_a_time"] and [row["rounds"] for row in case["implementations"]] == [2, 1]
    assert all(row["peak_mib"] > 0 for row in case["implementations"])


@pytest.mark.slow
def test_data(tmp_path: Path) -> None:
    from benchmarks.data import draw

    draw(tmp_path, count=3, size=60)
    run = bench(
        "data", "--quick", "--repeats", "1", "--threads", "1", "--json",
        "--list", str(tmp_path / "list.txt"), "--seconds", "0.5",
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    result = json.loads(run.stdout)
    assert [row["key"] for row in result["implementations"]] == ["workers0", "workers1", "workers2"]
    assert result["need_images_s"]["median"] == result["batch"] / 0.5 == 16
    for row in result["implementations"]:
        rate = row["images_s"]["median"]
        assert math.isclose(row["times_need"]["median"], rate / 16)
        assert math.isclose(row["ms_per_image"]["median"], 1000 / rate)


@pytest.mark.slow
def test_scale(tmp_path: Path) -> None:
    picture = tmp_path / "scale.svg"
    run = bench(
        "scale", "--quick", "--repeats", "1", "--threads", "1", "--of", "positions", "--json",
        "--output", str(picture),
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    [series] = json.loads(run.stdout)["series"]
    points = [(p["x"], p["total_ms"]["median"]) for p in series["points"]]
    assert points == sorted(points, key=lambda point: point[0]) and len(points) > 5
    expected = scale.fit(*zip(*points, strict=True), 1)
    assert np.allclose(series["fit"]["coefficients"], expected.coefficients)
    assert "</svg>" in picture.read_text()


@pytest.mark.slow
def test_tables_are_printed_for_people() -> None:
    run = bench("stack", "--quick", "--repeats", "1", "--threads", "1", "--implementations", "cpp")
    assert run.exit_code == 0, run.output
    for words in ("C++ layers", "× C++", "matrix products, backward", "Memory of the LSTM layers"):
        assert words in run.stdout
    assert "[/" not in run.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("net", "horze"), "there is no model 'horze'; did you mean horse"),
        (("data", "--quick", "--list", "no.txt"), "no.txt: there is no such list"),
    ],
)
def test_wrong_input_gives_one_sentence(arguments: tuple[str, ...], words: str) -> None:
    run = bench(*arguments)
    assert run.exit_code == 1, run.output
    assert run.stderr.startswith(f"error: {words}"), run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("stack", "--implementations", "cpp,gpu"),
            "--implementations cpp,gpu: there is no 'gpu'; choose one of cpp,",
        ),
        (("stack", "--size", "41"), "--size 41: give height x width in positions"),
        (("stack", "--size", "2x9"), "--size 2x9: the global grid needs at least 3 positions"),
        (
            ("stack", "--output", "a.txt"),
            "a.txt: unknown picture format; use a name that ends in .png",
        ),
        (
            ("net", "--implementations", "torch"),
            "--implementations torch: begin with one of Caffe's",
        ),
    ],
)
def test_wrong_options_are_usage_errors(arguments: tuple[str, ...], words: str) -> None:
    run = bench(*arguments)
    assert run.exit_code == 2, run.output
    assert words in run.stderr.splitlines()[-1], run.stderr


@pytest.mark.slow
def test_without_pytorch_its_rows_say_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implementations.importlib.util, "find_spec", lambda name: None)
    chosen = stack.choose_implementations("cpp,factored")
    sizes = stack.choose((), (1,), quick=True)
    result = stack.run(sizes, chosen, repeats=1, threads=1, limits=stack.QUICK_LIMITS)
    [_, torch_row] = result["cases"][0]["implementations"]
    assert torch_row["left_out"] == implementations.without("torch")


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("train", "lglstm.layers.seg_data", "evil", "Python (evil.SegData)"),
        ("deploy", "layer {", 'layer { name: "x" type: "HDF5Output" } layer {', "type HDF5Output"),
        ("solver", "base_lr", "test_net_param { } base_lr", "holds a net in test_net_param"),
    ],
)
def test_a_model_that_may_do_more_than_compute_is_refused(
    tmp_path: Path, file: str, old: str, new: str, words: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree("models/demo", folder)
    path = folder / f"{file}.prototxt"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    for command in ("net", "data"):
        run = bench(command, str(folder), "--quick")
        assert run.exit_code == 1, run.output
        assert words in run.stderr and "--trust-net" in run.stderr
