"""The CUDA runtime gives what PyTorch gives; without a CUDA device, by the twins of its kernels."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from live_bytes import LiveBytes
from test_click_head import CONFIGS, NARROW, TOKENS, network_of, patch_of

from VISTA3DCore.backends import selection
from VISTA3DCore.backends.cuda import startup
from VISTA3DCore.backends.cuda.backend import CudaBackend, Mode
from VISTA3DCore.backends.cuda.fused_network import Rebuilder
from VISTA3DCore.backends.cuda.kernels import operations
from VISTA3DCore.backends.cuda.kernels.choice import Kernels, kernels_for
from VISTA3DCore.backends.cuda.startup import TOLERANCES, Exercise, UnusableError, modes, start, trial
from VISTA3DCore.backends.memory import IMAGES, activation_bytes, device_budget, weight_bytes
from VISTA3DCore.backends.torch_backend import TorchBackend
from VISTA3DCore.errors import SlowerWarning
from VISTA3DCore.network.click_head import ClickTokens
from VISTA3DCore.network.config import ModelConfig

CPU = torch.device("cpu")
FLOAT32 = Mode("float32")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def both(config: ModelConfig = NARROW, mode: Mode = FLOAT32, device: str = "cpu", **options):
    return TorchBackend(network_of(config), config), CudaBackend(network_of(config), config, device, mode, **options)


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found.cpu() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_features_of_both_branches_equal_pytorchs(config):
    reference, backend = both(config)
    patch = patch_of(config)
    for name in ("automatic_features", "click_features"):
        expected, found = (getattr(one, name)(patch) for one in (reference, backend))
        assert found.dtype == torch.float32
        assert found.shape == expected.shape
        assert difference(found, expected) < 1e-5
    assert torch.equal(backend.class_matrix([1, 5, 40]), reference.class_matrix([1, 5, 40]))


@pytest.mark.parametrize("tokens", TOKENS.values(), ids=TOKENS)
def test_clicks_are_answered_as_by_pytorch_however_many_places_stay_empty(tokens):
    reference, backend = both()
    features = reference.click_features(patch_of(NARROW))
    expected = reference.click_scores(features, tokens)
    assert difference(backend.click_scores(features, tokens), expected) < 2e-5
    assert difference(backend.click_scores(backend.click_image(features), tokens), expected) < 2e-5


def test_more_clicks_than_the_largest_number_of_places():
    reference, backend = both()
    features = reference.click_features(patch_of(NARROW))
    many = ClickTokens(tuple((n % 32, n // 2, 7.0) for n in range(40)), (True, False) * 20)
    assert difference(backend.click_scores(features, many), reference.click_scores(features, many)) < 2e-5


def test_a_batch_of_windows_gives_what_single_windows_give():
    _, backend = both()
    patches = torch.cat([patch_of(NARROW, seed) for seed in range(3)])
    together = backend.automatic_features_batch(patches)
    for patch, features in zip(patches, together, strict=True):
        assert difference(features, backend.automatic_features(patch[None])) < 2e-5


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_stays_close_and_answers_in_float32(precision):
    reference, backend = both(mode=Mode(precision))
    patch = patch_of(NARROW)
    found = backend.automatic_features(patch)
    assert backend.precision == precision
    assert found.dtype == torch.float32
    assert 0 < difference(found, reference.automatic_features(patch)) < TOLERANCES[precision] / 2
    features = reference.click_features(patch)
    scores = backend.click_scores(features, TOKENS["several"])
    assert difference(scores, reference.click_scores(features, TOKENS["several"])) < TOLERANCES[precision] / 2


def test_every_image_stays_channels_last_so_that_the_kernels_suit():
    seen = []

    def noting(operation):
        def run(image, *arguments, after=None, **options):
            images = [one for one in (image, after, *arguments) if isinstance(one, torch.Tensor)]
            seen.extend(one.is_contiguous(memory_format=torch.channels_last_3d) for one in images)
            return (
                operation(image, *arguments, **options) if after is None else operation(image, *arguments, after=after)
            )

        return run

    # On a processor, torch keeps the layout in bfloat16 alone.
    kernels = Kernels("noting", "", noting(operations.measure), noting(operations.normalise))
    _, backend = both(mode=Mode("bfloat16"), kernels=kernels)
    features = backend.automatic_features_batch(patch_of(NARROW))
    assert features.is_contiguous(memory_format=torch.channels_last_3d)
    backend.click_scores(backend.click_features(patch_of(NARROW)), TOKENS["several"])
    assert len(seen) > 30
    assert all(seen)


def test_no_value_is_looked_at_on_the_host():
    """A graph could not be captured otherwise; tensors without values raise an error when somebody looks."""
    _, backend = both(device="meta")
    features = backend.automatic_features_batch(torch.cat([patch_of(NARROW)] * 2))
    assert features.shape == (2, 16, 32, 32, 32)
    for tokens in TOKENS.values():
        assert backend.click_scores(backend.click_features(patch_of(NARROW)), tokens).shape == (32, 32, 32)


def test_on_the_cpu_goes_on_with_the_reference_itself():
    _, backend = both()
    other = backend.on("cpu")
    assert type(other) is TorchBackend
    assert difference(other.automatic_features(patch_of(NARROW)), backend.automatic_features(patch_of(NARROW))) < 1e-5


def test_the_batch_can_be_halved_down_to_one():
    _, backend = both(batch=4)
    assert [backend.shrink(), backend.batch, backend.shrink(), backend.batch, backend.shrink()] == [
        True,
        2,
        True,
        1,
        False,
    ]


def test_starting_takes_the_asked_precision_where_its_answer_is_right():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend = start(network_of(NARROW), NARROW, CPU, "bfloat16")
    assert backend.mode == Mode("bfloat16")
    assert start(network_of(NARROW), NARROW, CPU).precision == "float32"


@pytest.mark.parametrize("config", [NARROW, CONFIGS["wider clicks"], replace(NARROW, click_branch=False)])
def test_a_wrong_answer_is_noticed(config):
    _, backend = both(config)
    exercise = Exercise.of(network_of(config), config)
    assert trial(backend, exercise) is None
    wrong = [replace(exercise, features=exercise.features.roll(1, dims=1))]
    wrong.append(replace(exercise, features=torch.full_like(exercise.features, torch.nan)))
    if config.click_branch:
        wrong.append(replace(exercise, scores=exercise.scores.roll(1, dims=1)))
    assert all("differs" in trial(backend, one) for one in wrong)


class Broken(CudaBackend):
    """Convolutions in half precision, or all of them, are wrong, as with some versions of cuDNN."""

    right: tuple[str, ...] = ("float32",)

    def automatic_features_batch(self, patches):
        features = super().automatic_features_batch(patches)
        return features if self.precision in self.right else features.roll(1, dims=2)


def test_wrong_convolutions_are_worked_around_and_the_user_is_told_once(monkeypatch):
    monkeypatch.setattr("VISTA3DCore.backends.cuda.startup.CudaBackend", Broken)
    with pytest.warns(SlowerWarning, match=r"wrong or slow.*TF32") as told:
        backend = start(network_of(NARROW), NARROW, CPU, "float16")
    assert len(told) == 1
    assert backend.mode == Mode("float32", tensor_float=True)
    monkeypatch.setattr(Broken, "right", ())
    with pytest.raises(UnusableError, match="float16: the answer differs") as error:
        start(network_of(NARROW), NARROW, CPU, "float16")
    assert not error.value.broken


@pytest.mark.parametrize("failure", [RuntimeError, TypeError, torch.OutOfMemoryError])
def test_a_device_on_which_nothing_is_right_is_left_to_others(monkeypatch, failure):
    """Only the processor's own answers, from which the exercise comes, are right."""

    def fail(*_):
        raise failure("no kernel image is available for execution on the device")

    exercise = Exercise.of(network_of(NARROW), NARROW)
    monkeypatch.setattr(Exercise, "of", lambda *_: exercise)
    monkeypatch.setattr(CudaBackend, "automatic_features", fail)
    monkeypatch.setattr(TorchBackend, "automatic_features", fail)
    if failure is torch.OutOfMemoryError:
        assert type(start(network_of(NARROW), NARROW, CPU)) is CudaBackend  # nothing was found out
        return
    with pytest.warns(SlowerWarning, match=r"'meta' cannot be used here .*no kernel image.*The processor is used"):
        backend, _ = selection.choose_backend(network_of(NARROW), NARROW, "meta", "cuda", "float16")
    assert backend.device == CPU


def test_what_is_known_of_a_precision_is_not_found_out_again(monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setattr(startup, "_milliseconds", lambda _device, dtype: float(dtype.itemsize))
    assert "wrongly" in startup._known_problem(cuda, Mode("bfloat16"))
    assert startup._known_problem(cuda, Mode("float32")) is None
    assert startup._known_problem(CPU, Mode("bfloat16")) is None
    monkeypatch.setattr(startup, "_milliseconds", lambda _device, dtype: 9.0 if dtype.itemsize == 2 else 2.0)
    assert startup._known_problem(cuda, Mode("float16")) == "float16 is slower than float32"

    def fail(*_):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(startup, "_milliseconds", fail)
    assert startup._known_problem(cuda, Mode("float16")) is None


def test_what_others_use_on_the_device_is_not_to_be_had(monkeypatch):
    gigabyte, taken = 1 << 30, {"reserved": 3, "allocated": 0}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (4 * gigabyte, 8 * gigabyte))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: taken["reserved"] * gigabyte)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: taken["allocated"] * gigabyte)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda _: 0.75)
    place = torch.device("cuda", 0)
    assert device_budget(place, gigabyte) == 6 * gigabyte
    taken["allocated"] = 3  # the weights and two gigabytes of retained features
    assert device_budget(place, gigabyte) == 4 * gigabyte


def test_modes_go_from_fast_to_safe():
    assert next(modes(Mode("float16"))) == Mode("float16")
    assert next(modes(Mode("float16"), skip=True)) == Mode("float32", tensor_float=True)
    assert [mode.precision for mode in modes(FLOAT32)] == ["float32"] * 2
    assert not any(mode.tensor_float for mode in modes(FLOAT32))


@pytest.mark.parametrize("config", [NARROW, ModelConfig(), replace(NARROW, click_width=24)])
def test_the_size_of_the_weights_is_that_of_the_network(config):
    from VISTA3DCore.network.architecture import build_network

    with torch.device("meta"):
        network = build_network(config)

    def size(*modules) -> int:
        return sum(one.numel() for module in modules for one in module.parameters() if one.ndim > 1)

    encoder = network.image_encoder
    automatic = size(encoder.encoder, encoder.up_layers_auto, network.class_head.image_post_mapping)
    clicks = size(encoder.up_layers, network.point_head.feat_downsample)
    assert weight_bytes(config, 2) == pytest.approx(2 * automatic, rel=1e-3)
    assert weight_bytes(config, 4, clicks=True) == pytest.approx(4 * (automatic + clicks), rel=2e-2)


def test_images_take_as_much_for_each_window_of_a_batch():
    config = ModelConfig()
    assert activation_bytes(config, 2, 2) == 2 * activation_bytes(config, 2) == 2 * IMAGES * 2 * 48 * 128**3


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("channels_last", [True, False], ids=["last", "first"])
def test_on_a_real_device(precision, channels_last):
    reference, backend = both(mode=Mode(precision, channels_last), device="cuda")
    patch, tolerance = patch_of(NARROW), TOLERANCES[precision]
    assert difference(backend.automatic_features(patch), reference.automatic_features(patch)) < tolerance
    expected = reference.click_features(patch)
    assert difference(backend.click_features(patch), expected) < tolerance
    for tokens in TOKENS.values():
        found = backend.click_scores(expected, tokens)
        assert difference(found, reference.click_scores(expected, tokens)) < tolerance


@pytest.mark.gpu
@needs_cuda
def test_float32_rounded_to_tf32_on_a_real_device():
    _, backend = both(mode=Mode("float32", tensor_float=True), device="cuda")
    assert trial(backend, Exercise.of(network_of(NARROW), NARROW)) is None


@pytest.mark.gpu
@needs_cuda
def test_replayed_graphs_give_what_the_calls_give():
    """Up to the rounding of float16: cuDNN may choose other algorithms for each of them."""
    _, replayed = both(mode=Mode(), device="cuda", batch=2)
    _, called = both(mode=Mode(), device="cuda", graphs=False)
    for seed in range(3):
        patches = torch.cat([patch_of(NARROW, seed), patch_of(NARROW, seed + 10)]).cuda()
        expected = called.automatic_features_batch(patches).float().cpu()
        assert difference(replayed.automatic_features_batch(patches).float(), expected) < 1e-2
        sides = [called.click_image(called.click_features(one[None])) for one in patches]
        for side in (*sides, sides[0]):
            for tokens in TOKENS.values():
                expected = called.click_scores(side, tokens).cpu()
                assert difference(replayed.click_scores(side, tokens), expected) < 1e-2


@pytest.mark.gpu
@needs_cuda
def test_kernels_of_both_forms_agree_in_the_whole_network():
    if kernels_for(torch.device("cuda")).name != "triton":
        pytest.skip(kernels_for(torch.device("cuda")).reason)
    plain = kernels_for(CPU)
    _, fused = both(device="cuda")
    _, eager = both(device="cuda", kernels=plain)
    patch = patch_of(NARROW)
    assert difference(fused.automatic_features(patch), eager.automatic_features(patch).cpu()) < 1e-4


@pytest.mark.gpu
@needs_cuda
def test_the_window_loop_never_waits_for_the_device():
    _, backend = both(mode=Mode(), device="cuda")
    patch = patch_of(NARROW).cuda()
    backend.automatic_features_batch(patch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            backend.automatic_features_batch(patch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@needs_cuda
def test_the_device_starts_in_float16():
    backend = start(network_of(NARROW), NARROW, torch.device("cuda"))
    assert backend.precision == "float16"
    assert backend.channels_last


def reuse_memory(image, *_, moments=None, after=None, overwrite=False):
    """Take the memory that the fused kernel takes; what it computes does not matter."""
    return image if overwrite else torch.empty_like(image)


def test_images_inside_the_network_take_no_more_than_is_reckoned():
    config = replace(NARROW, blocks_down=(1, 2, 2, 2))
    network = network_of(config)
    rebuild = Rebuilder(Kernels("none", "", normalise=reuse_memory), CPU, torch.float32, torch.channels_last_3d)
    encoder = rebuild.encoder(network.image_encoder.encoder)
    decoder = rebuild.decoder(network.image_encoder.up_layers_auto, network.class_head.image_post_mapping)
    with torch.inference_mode(), LiveBytes() as traced:
        decoder(encoder(patch_of(config)))
    reckoned = activation_bytes(config, 4)
    assert 0.5 * reckoned < traced.peak <= reckoned
