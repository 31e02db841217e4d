"""What a step of the loss should take, on paper: bytes moved, passes that wait for one another, and devices.

Every count is of value and gradient by float32 logits, with `k = n/2`. It is assumed that

- the search takes 3 rounds of 3 sums; 2 sums come before it, and 3, of the value and of the gradient, after it;
- XLA reads the logits once for the sums that do not wait for one another (`XLA, fused`), or once for every sum, as it
  does on a CPU (`XLA, not fused`); it makes targets of the labels as it reads them, and holds none of this on chip;
- the kernel reads scores and targets once and writes the gradient once, and XLA writes the targets before; what it
  costs to bring the entries of a group together and apart is left out. It takes up to 8,192 examples;
- a pass that waits for another costs a launch, and on a GPU every round asks the host whether there is another.
"""

from typing import NamedTuple

from softbin._engine.kernels.on_chip import LONGEST
from softbin.experiments.reports.text import markdown

SIZES = ((8192, 10), (65_536, 10), (65_536, 1000), (16_777_216, 1))
"""Examples and classes."""
_ROUNDS, _SUMS, _BEFORE, _AFTER = 3, 3, 2, 3
_FLOAT = 4


class Device(NamedTuple):
    """What a step waits for."""

    kind: str  # a part of what JAX calls it
    bandwidth: float  # of its memory, bytes a second
    launch: float  # seconds
    condition: float  # seconds, of a loop


DEVICES = {
    "H100 SXM": Device("H100 80GB HBM3", 3.35e12, 4e-6, 15e-6),
    "H200": Device("H200", 4.8e12, 4e-6, 15e-6),
    "TPU v5e": Device("TPU v5 lite", 0.819e12, 1e-6, 1e-6),
}


class Step(NamedTuple):
    """What a way of computing the loss asks of a device."""

    moved: int  # bytes
    passes: int
    rounds: int = 0  # that the host looks after

    def seconds(self, device: Device) -> float:
        """The expected time."""
        return self.moved / device.bandwidth + self.passes * device.launch + self.rounds * device.condition


def steps(n: int, classes: int) -> dict[str, Step]:
    """By the way of computing; `least` reads logits and labels once and writes the gradient, as any loss must."""
    array, labels = _FLOAT * n * classes, _FLOAT * n
    fused, apart = 1 + _ROUNDS + 2, _BEFORE + _ROUNDS * _SUMS + _AFTER + 1
    result = {"least": Step(2 * array + labels, 1)}
    if n <= LONGEST:
        result["kernel"] = Step(4 * array + labels, 2)
    result["XLA, fused"] = Step((fused + 1) * array + 2 * labels, fused, _ROUNDS)
    result["XLA, not fused"] = Step((apart + 1) * array + 2 * labels, apart, _ROUNDS)
    return result


def device(kind: str) -> Device | None:
    """The device that JAX calls so, if it is one of `DEVICES`."""
    return next((device for device in DEVICES.values() if device.kind in kind), None)


def table() -> str:
    """Megabytes, passes and microseconds of each size and way."""
    rows = []
    for n, classes in SIZES:
        for way, step in steps(n, classes).items():
            times = [f"{1e6 * step.seconds(device):,.0f}" for device in DEVICES.values()]
            rows.append([f"{n:,} x {classes:,}, {way}", f"{step.moved / 1e6:,.1f}", str(step.passes), *times])
    return markdown(["examples x classes", "MB", "passes", *(f"{name}, µs" for name in DEVICES)], rows)
