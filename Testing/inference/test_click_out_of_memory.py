"""When memory runs out during a click, it is answered one step down: without the device's cache, then on the CPU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from click_backends import RuleBackend, ball, minus, open_scene, plus, scene, straight

from VISTA3DCore.errors import NotEnoughMemoryError, SlowerWarning

CLICKS = [plus(30, 30, 30), minus(46, 30, 30)]
STEPS = ("click_features", "click_image", "click_scores")


@dataclass
class Side:
    """What one backend prepared; no other one can read the memory in which it lies."""

    owner: RuleBackend
    features: torch.Tensor


class FailingBackend(RuleBackend):
    """Runs out of memory at some calls of one step; ``on`` remembers where the work went."""

    step = ""
    fails_at: tuple[int, ...] = ()
    calls = 0
    moved_to = ""
    successor: RuleBackend | None = None

    def on(self, device):
        self.moved_to = str(device)
        self.successor = super().on(device)
        return self.successor

    def _try(self, step: str) -> None:
        if step == self.step:
            self.calls += 1
            if self.calls in self.fails_at:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nDetails follow.")

    def click_features(self, patch):
        self._try("click_features")
        return super().click_features(patch)

    def click_image(self, features):
        self._try("click_image")
        return Side(self, super().click_image(features))

    def click_scores(self, features, tokens):
        assert features.owner is self
        self._try("click_scores")
        return super().click_scores(features.features, tokens)

    def automatic_features(self, patch):
        self._try("automatic_features")
        return super().automatic_features(patch)


@pytest.fixture(scope="module")
def volume():
    return scene((30, 30, 30), straight(), ball((30, 30, 30), 14))


@pytest.fixture(scope="module")
def expected(volume) -> np.ndarray:
    return open_scene(volume).click("liver", CLICKS).mask


def failing(step: str, *at: int) -> FailingBackend:
    backend = FailingBackend()
    backend.step, backend.fails_at = step, at
    return backend


@pytest.mark.parametrize("step", STEPS)
def test_one_failure_frees_the_devices_cache_and_tries_again(volume, expected, step):
    backend = failing(step, 1)
    result = open_scene(volume, backend).click("liver", CLICKS)
    np.testing.assert_array_equal(result.mask, expected)
    assert result.encoded == 1
    assert not backend.moved_to


@pytest.mark.parametrize("step", STEPS)
def test_a_second_failure_moves_the_network_to_the_cpu(volume, expected, step):
    backend = failing(step, 1, 2)
    session = open_scene(volume, backend)
    with pytest.warns(SlowerWarning):
        result = session.click("liver", CLICKS)
    np.testing.assert_array_equal(result.mask, expected)
    assert backend.moved_to == "cpu"
    assert backend.successor.asked
    calls = backend.calls
    again = session.click("liver", CLICKS[:1])
    assert again.mask[15, 15, 15]
    assert backend.calls == calls


@pytest.mark.parametrize("step", STEPS)
def test_when_nothing_is_left_the_reason_is_one_sentence(volume, expected, step):
    backend = failing(step, *range(1, 4))
    backend.on = lambda _: backend
    session = open_scene(volume, backend)
    with (
        pytest.raises(NotEnoughMemoryError, match=r"^There is not enough memory[^\n]*smaller model\.$"),
        pytest.warns(SlowerWarning),
    ):
        session.click("liver", CLICKS)
    np.testing.assert_array_equal(session.click("liver", CLICKS).mask, expected)


@pytest.mark.parametrize("failures", [1, 2])
def test_finding_the_member_of_a_group_may_run_out_of_memory_too(volume, failures):
    backend = failing("automatic_features", *range(1, failures + 1))
    session = open_scene(volume, backend)
    if failures == 1:
        assert session.click("kidney", CLICKS).structure.index == 14
    else:
        with pytest.warns(SlowerWarning):
            assert session.click("kidney", CLICKS).structure.index == 14


def test_other_errors_are_not_swallowed(volume, expected):
    backend = RuleBackend()
    session = open_scene(volume, backend)
    backend.click_scores = lambda *_: torch.zeros(2) + torch.zeros(3)
    with pytest.raises(RuntimeError, match="size of tensor"):
        session.click("liver", CLICKS)
    del backend.click_scores
    np.testing.assert_array_equal(session.click("liver", CLICKS).mask, expected)
