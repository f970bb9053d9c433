"""Everything a rented machine does besides training steps, in seconds, as quantiles with their source."""

from __future__ import annotations

from typing import NamedTuple

from planner.quantiles import Quantiles, added

_MIB = 2.0**20

#: Seconds from the bill's first second to a shell, by kind of place. Sources: SkyPilot and dstack users report
#: 1-5 minutes on hyperscalers and 2-10 on neoclouds; nothing boots on one's own machine.
BOOT_S = {"cloud": Quantiles(60, 120, 360), "local": Quantiles(0, 0, 0)}
#: Worker environment: torch with CUDA, transformers, peft, trl is about 7 GB from a package mirror.
SETUP_S = {"cloud": Quantiles(90, 180, 480), "local": Quantiles(1, 2, 5)}
#: Python imports of torch, transformers, trl and peft: 6-20 s measured on busy 2-core machines.
IMPORT_S = Quantiles(6, 12, 30)
#: Model download from the hub or a bucket: 100-800 MiB/s on cloud machines.
DOWNLOAD_BYTES_PER_S = 300 * _MIB
#: Reading weights from local disk into device memory.
LOAD_BYTES_PER_S = 800 * _MIB
#: Sustained upload to an object store from one machine, and local NVMe write while training waits.
UPLOAD_BYTES_PER_S = 200 * _MIB
SAVE_BYTES_PER_S = 700 * _MIB
#: Fast tokenizers on one process, with the data library's overhead.
TOKENISE_TOKENS_PER_S = 4e5
#: Idle tail between the job's end and the machine's release, as billed.
IDLE_S = {"cloud": Quantiles(20, 60, 180), "local": Quantiles(0, 0, 0)}

ASSUMED_SOURCE = "typical values, see planner/overheads.py; replaced by your own runs"


class Overheads(NamedTuple):
    """Billed seconds around the training steps.

    Attributes:
        start_parts_s: What a start consists of: boot, environment, imports, download and loading of the model.
        prepare_s: Tokenising the data.
        evaluate_s: Evaluating base and tuned model.
        finish_s: Saving and uploading the result.
        idle_s: Until the machine is released.
        save_s: One checkpoint's stop of the training.
    """

    start_parts_s: dict[str, Quantiles]
    prepare_s: Quantiles
    evaluate_s: Quantiles
    finish_s: Quantiles
    idle_s: Quantiles
    save_s: float

    @property
    def start_s(self) -> Quantiles:
        """From the bill's first second to the first step; paid again after each interruption."""
        return added(self.start_parts_s.values())

    @property
    def once_s(self) -> Quantiles:
        """All of it but interruptions and checkpoints; quantiles are added, as the parts share their causes."""
        return added((self.start_s, self.prepare_s, self.evaluate_s, self.finish_s))


def overheads(
    *,
    local: bool,
    weight_bytes: float,
    checkpoint_bytes: float,
    result_bytes: float,
    data_tokens: float,
    evaluate_s: float,
) -> Overheads:
    """Overheads of one job on one kind of place.

    Args:
        local: True on one's own machine: nothing boots, installs or downloads.
        weight_bytes: Base model as stored.
        checkpoint_bytes: Adapter or model with optimizer state, as much of it as one machine writes.
        result_bytes: What is kept at the end.
        data_tokens: Tokens to tokenise.
        evaluate_s: Time of both evaluations from the step-time model.
    """
    place = "local" if local else "cloud"
    fetch_s = 0.0 if local else weight_bytes / DOWNLOAD_BYTES_PER_S
    model_s = _around(fetch_s + weight_bytes / LOAD_BYTES_PER_S)
    upload_s = result_bytes / SAVE_BYTES_PER_S + (0.0 if local else result_bytes / UPLOAD_BYTES_PER_S)
    return Overheads(
        start_parts_s={
            "boot": BOOT_S[place],
            "environment": SETUP_S[place],
            "imports": IMPORT_S,
            "model": model_s,
        },
        prepare_s=_around(data_tokens / TOKENISE_TOKENS_PER_S),
        evaluate_s=_around(evaluate_s),
        finish_s=_around(1.0 + upload_s),
        idle_s=IDLE_S[place],
        save_s=0.2 + checkpoint_bytes / SAVE_BYTES_PER_S,
    )


def _around(seconds: float) -> Quantiles:
    """A duration known within a factor of two."""
    return Quantiles(seconds / 2, seconds, seconds * 2)
