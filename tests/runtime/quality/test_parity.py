"""Comparing artifacts with a reference: inputs, figures, bounds, failures; the models repeat pixels, the errors are made."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from flashrib.runtime.errors import FlashribError, ModelError, PictureError, SessionError, UsageError
from flashrib.runtime.pictures.files import Picture, write_picture
from flashrib.runtime.quality.parity import compare, failure_of, psnr_drop, verify
from flashrib.runtime.quality.parity_bounds import BOUNDS, bound_of
from flashrib.runtime.quality.parity_inputs import Case, made_cases, picture_cases
from tests.model.networks import SMALL
from tests.runtime.models import write_checkpoint, write_onnx
from tests.runtime.picture_files import noise
from tests.runtime.sessions.test_onnxruntime import METADATA, nearest

DYNAMIC = (1, 3, "h", "w")


def write_changed(path: Path, operator: str, value: float, **options: Any) -> Path:
    """The model of `write_onnx` whose output goes through one more node with a constant."""
    precision = options.pop("precision", "fp32")
    model = nearest(**options)
    model.graph.node[-1].output[0] = "inner"
    model.graph.node.append(helper.make_node(operator, ["inner", "value"], ["output"]))
    model.graph.initializer.append(helper.make_tensor("value", TensorProto.FLOAT, [], [value]))
    metadata = dataclasses.replace(METADATA, precision=precision)
    helper.set_model_props(model, metadata.to_properties())
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return write_onnx(tmp_path / "reference.onnx")


def test_the_inputs_are_what_they_are_called() -> None:
    cases = {case.name: case for case in made_cases(33)}
    assert len(cases) == 9
    for case in cases.values():
        assert (case.batch.dtype, case.batch.shape[:2]) == (np.float32, (1, 3)), case.name
        assert case.batch.min() >= 0, case.name
        assert case.batch.max() <= 1, case.name
        assert min(case.batch.shape[2:]) >= 33, case.name
    assert cases["black"].batch.max() == 0
    assert cases["white"].batch.min() == 1
    assert set(np.unique(cases["noise"].batch)) == {0, 1}
    board = cases["checkerboard"].batch
    assert np.abs(np.diff(board, axis=2)).min() == np.abs(np.diff(board, axis=3)).min() == 1
    assert (
        {case.batch.shape[2] % 2 for case in cases.values()}
        == {case.batch.shape[3] % 2 for case in cases.values()}
        == {0, 1}
    )
    assert cases["33x33"].batch.shape == (1, 3, 33, 33)


def test_the_seed_decides_over_the_random_inputs() -> None:
    first, same, other = (made_cases(8, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a.batch, b.batch) for a, b in zip(first, same, strict=True))
    changed = {a.name for a, b in zip(first, other, strict=True) if not np.array_equal(a.batch, b.batch)}
    assert {"random", "noise", "8x8"} <= changed
    assert not {"chart", "black", "white", "checkerboard"} & changed


@pytest.mark.parametrize(("minimum", "side"), [(33, 20), (49, 128), (100, 300)])
def test_no_input_is_below_the_minimum(minimum: int, side: int) -> None:
    assert min(min(case.batch.shape[2:]) for case in made_cases(minimum, side)) == minimum


def test_pictures_are_cut_together_with_their_originals(tmp_path: Path) -> None:
    high = noise(100, 120, 3)
    write_picture(tmp_path / "a_HR.png", Picture(high))
    write_picture(tmp_path / "a_LR.png", Picture(high[::2, ::2].copy()))
    (case,) = picture_cases(tmp_path, 2, 33, side=40)
    assert case.batch.shape == (1, 3, 40, 40)
    assert case.truth is not None
    assert np.array_equal(case.truth[::2, ::2], np.rint(case.batch[0].transpose(1, 2, 0) * 255))


def test_pictures_without_originals_are_inputs(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_picture(tmp_path / f"{name}.png", Picture(noise(50, 60, 3)))
    cases = picture_cases(tmp_path, 2, 33)
    assert [(case.name, case.batch.shape, case.truth) for case in cases] == [
        (name, (1, 3, 50, 60), None) for name in ("a.png", "b.png")
    ]


def test_a_picture_below_the_minimum_is_named(tmp_path: Path) -> None:
    write_picture(tmp_path / "tiny.png", Picture(noise(32, 60, 3)))
    with pytest.raises(PictureError, match=r"tiny\.png: has 60x32 pixels, but .* no less than 33x33"):
        picture_cases(tmp_path, 2, 33)


def test_a_pair_of_another_scale_is_named(tmp_path: Path) -> None:
    write_picture(tmp_path / "a_HR.png", Picture(noise(120, 120, 3)))
    write_picture(tmp_path / "a_LR.png", Picture(noise(40, 40, 3)))
    with pytest.raises(PictureError, match=r"a_HR\.png: has 120x120 pixels, which is not 2 times the 40x40"):
        picture_cases(tmp_path, 2, 33)


def test_the_figures() -> None:
    """An error of 0.01 everywhere, on an output of 0.5: max abs 0.01, RMS ratio 0.02, 40 dB."""
    case = Case("flat", np.full((1, 3, 4, 5), 0.5, np.float32))
    expected = np.full((1, 3, 8, 10), 0.5)
    result = compare(case, expected.astype(np.float32), (expected + 0.01).astype(np.float32), BOUNDS["bf16"], 2)
    assert (result.height, result.width, result.finite) == (4, 5, True)
    assert (result.max_abs, result.rms_ratio, result.psnr) == pytest.approx((0.01, 0.02, 40), rel=1e-4)
    dark = compare(case, expected.astype(np.float32) * 0, np.full((1, 3, 8, 10), 0.01, np.float32), BOUNDS["bf16"], 2)
    assert dark.rms_ratio == pytest.approx(0.1)  # not infinite
    equal = compare(case, expected.astype(np.float32), expected.astype(np.float32), BOUNDS["fp32"], 2)
    assert (equal.max_abs, equal.psnr, equal.within) == (0, math.inf, True)


@pytest.mark.parametrize(
    ("precision", "error", "passes"),
    [
        ("fp32", 5e-5, True),
        ("fp32", 2e-4, False),
        ("fp16", 2e-4, True),
        ("fp16", 1e-2, False),
        ("bf16", 1e-2, True),
        ("bf16", 5e-2, False),
        ("int8", 2e-2, True),
        ("fp8", 2e-1, False),
    ],
)
def test_bounds_follow_the_precision(reference: Path, precision: str, error: float, passes: bool) -> None:
    artifact = write_changed(reference.with_name("artifact.onnx"), "Mul", 1 - error, precision=precision)
    parity = verify(reference, [artifact])
    (result,) = parity.artifacts
    assert (result.precision, result.bound) == (precision, BOUNDS[precision])
    assert (parity.passed, result.failure is None) == (passes, passes)
    if not passes:
        assert result.failure is not None
        assert f"{precision} may differ by" in result.failure


@pytest.mark.parametrize(("clamps", "says_so"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_clamped_artifact_is_compared_with_what_is_clamped(reference: Path, clamps: bool, says_so: bool) -> None:
    bright = write_changed(reference, "Mul", 1.5)
    model = onnx.load(bright)
    if clamps:
        model.graph.node[-1].output[0] = "open"
        model.graph.node.append(helper.make_node("Clip", ["open", "low", "high"], ["output"]))
        bounds = (("low", 0.0), ("high", 1.0))
        model.graph.initializer.extend(helper.make_tensor(name, TensorProto.FLOAT, [], [v]) for name, v in bounds)
    helper.set_model_props(model, dataclasses.replace(METADATA, clamp=says_so).to_properties())
    artifact = reference.with_name("artifact.onnx")
    onnx.save(model, artifact)
    assert verify(bright, [artifact]).passed == (clamps == says_so)


def test_the_coarser_precision_bounds() -> None:
    assert bound_of("fp32", "fp16") == bound_of("fp16", "fp32") == BOUNDS["fp16"]
    with pytest.raises(ModelError, match=r"'fp4' is not one of fp32, fp16"):
        bound_of("fp4")


@pytest.mark.parametrize("operator", ["Div", "Log"])
def test_nan_and_infinity_fail(reference: Path, operator: str) -> None:
    """Division by 0 gives NaN for black and infinity for white, whatever the precision allows."""
    artifact = write_changed(reference.with_name("artifact.onnx"), "Div", 0.0, precision="int8")
    if operator == "Log":
        model = nearest()
        model.graph.node[-1].output[0] = "inner"
        model.graph.node.append(helper.make_node("Log", ["inner"], ["output"]))
        onnx.save(model, artifact)
    (result,) = verify(reference, [artifact]).artifacts
    assert result.failure is not None
    assert result.failure.startswith("NaN or infinity in the output")
    assert result.worst is not None
    assert not result.worst.finite


def test_nan_in_the_reference_is_an_error(reference: Path) -> None:
    broken = write_changed(reference.with_name("broken.onnx"), "Div", 0.0)
    with pytest.raises(SessionError, match=r"broken\.onnx: NaN or infinity in the reference's output"):
        verify(broken, [reference])


def test_one_bad_artifact_keeps_no_other_from_being_compared(reference: Path) -> None:
    text = reference.with_name("text.onnx")
    text.write_text("no model")
    other_scale = reference.with_name("x3.onnx")
    model = nearest(factor=3.0, metadata=dataclasses.replace(METADATA, scale=3).to_properties())
    other_scale.write_bytes(model.SerializeToString())
    artifacts = [text, reference.with_name("missing.onnx"), other_scale, reference]
    results = verify(reference, artifacts).artifacts
    assert [result.file for result in results] == artifacts
    assert [result.failure for result in results] == [
        "not an ONNX file, or a truncated one (8 bytes): export or copy it again",
        "there is no such file",
        f"upscales by 3, but the reference {reference} by 2",
        None,
    ]
    assert len(results[3].comparisons) == 9
    assert results[3].sha256 == results[3].sha256.lower() != ""


def test_an_artifact_that_fails_while_running_has_failed(reference: Path) -> None:
    """The file says scale 2, and triples."""
    artifact = reference.with_name("artifact.onnx")
    artifact.write_bytes(nearest(factor=3.0).SerializeToString())
    (result,) = verify(reference, [artifact]).artifacts
    assert result.failure is not None
    assert "on the input 'random': the output is 1x3x216x216, but the reference's is 1x3x144x144" in result.failure


def test_a_reference_that_cannot_be_opened_is_an_error(reference: Path) -> None:
    with pytest.raises(FlashribError, match="there is no such file"):
        verify(reference.with_name("missing.onnx"), [reference])
    with pytest.raises(UsageError, match="no artifact"):
        verify(reference, [])


def test_an_artifact_of_a_fixed_size_gets_inputs_of_this_size(reference: Path) -> None:
    fixed = write_onnx(reference.with_name("fixed.onnx"), shape=(1, 3, 48, 64))
    parity = verify(reference, [fixed, reference])
    sizes = [{(c.height, c.width) for c in artifact.comparisons} for artifact in parity.artifacts]
    assert parity.passed
    assert sizes[0] == {(48, 64)}
    assert len(sizes[1]) > 3
    assert "checkerboard 64x48" in parity.cases
    assert "checkerboard" in parity.cases


def test_two_fixed_sizes_cannot_be_compared(reference: Path) -> None:
    small, large = (write_onnx(reference.with_name(f"{n}.onnx"), shape=(1, 3, n, n)) for n in (40, 50))
    (result,) = verify(small, [large]).artifacts
    assert (
        result.failure
        == f"takes 50x50 pixels only, but the reference {small} takes 40x40 only: use a reference of any size"
    )


def test_the_loss_of_psnr_to_the_originals(reference: Path, tmp_path: Path) -> None:
    """The original is exactly what the reference makes of it plus 10 steps; the artifact is off by 2 more."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    low = np.full((40, 40, 3), 100, np.uint8)
    write_picture(folder / "a_LR.png", Picture(low))
    write_picture(folder / "a_HR.png", Picture(low.repeat(2, 0).repeat(2, 1) + 10))
    artifact = write_changed(tmp_path / "artifact.onnx", "Sub", 2 / 255, precision="bf16")
    (result,) = verify(reference, [artifact], pictures=folder).artifacts
    assert psnr_drop(result) == pytest.approx(20 * math.log10(12 / 10), abs=1e-6)
    picture = next(c for c in result.comparisons if c.case == "a_LR.png")
    assert picture.psnr_reference == pytest.approx(20 * math.log10(255 / (10 * 219 / 255)), abs=1e-6)
    result.comparisons = [picture]  # the RMS ratio of this input alone is within its bound: the loss is not
    assert failure_of(result) == "loses 1.584 dB of PSNR to the originals, but bf16 may lose 0.050 dB"


def test_a_checkpoint_against_its_exports(tmp_path: Path) -> None:
    """ONNX Runtime has no kernels for bf16 on the CPU: that file is emulated, and says so."""
    from flashrib.export.options import ExportOptions
    from flashrib.export.to_onnx import onnx_from_network

    network = write_checkpoint(tmp_path / "small.safetensors")
    files = [tmp_path / f"{precision}.onnx" for precision in ("fp32", "bf16")]
    for file in files:
        onnx.save(onnx_from_network(network, options=ExportOptions(precision=file.stem)), file)
    parity = verify(tmp_path / "small.safetensors", files, most_shown=1)
    result, low = parity.artifacts
    assert (parity.reference.kind, result.kind, result.failure) == ("torch", "onnxruntime", None)
    assert (low.kind, low.precision, low.bound) == ("emulation", "bf16", BOUNDS["bf16"])
    assert 1e-4 < max(c.rms_ratio for c in low.comparisons) < 2e-1  # rounded, and nothing worse
    assert min(c.height for c in result.comparisons) == SMALL.minimum
    assert 0 < max(c.max_abs for c in result.comparisons) <= 1e-4
    assert [(shown.case.name, list(shown.artifacts)) for shown in parity.shown] == [("chart", [0, 1])]
