"""Traces steps of real models with few blocks; run as a script: cases as JSON on stdin, peaks on stdout."""

import json
import sys
import warnings

warnings.simplefilter("ignore")


def main():
    import torch
    import transformers

    from planner.architecture.hf_config import read_config
    from planner.trace import trace_step
    from tests.planner.traced import setup_of

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    peaks = []
    for facts, fields, adapter in json.load(sys.stdin):
        setup = setup_of(read_config(facts, "traced", "test"), fields, adapter)
        peaks.append(trace_step(setup, facts).peak_bytes)
    json.dump(peaks, sys.stdout)


if __name__ == "__main__":
    main()
