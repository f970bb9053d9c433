"""The fitted numbers of the time model; benchmarks/fit_throughput.py fits them, ACCURACY.md says how well."""

from __future__ import annotations

TIME: dict[str, float] = {
    "matmul": 0.89,  # share of the attainable rate that a large product in a training step reaches
    "few_tokens": 1.5,  # slowdown r / T of a product with T tokens, r = attainable FLOP/s per byte/s
    "narrow": 1.7,  # slowdown r / h of a product of width h
    "fp8": 1.86,  # speed-up of the FLOP part, Transformer Engine inside Megatron
    "fp8_casts": 1.25,  # the same in stacks that cast around single modules
    "fp4": 1.3,  # further speed-up of four-bit formats over fp8, assumed: published training runs are few
    "ridge": 200.0,  # FLOP per byte above which large caches hide the memory
    "attention_first": 0.62,  # speed of FlashAttention 1 against the second
    # The same of the kernel that takes a mask: 8.7 ms where the flash kernel takes 2.5 without one (16 heads of 64,
    # 8 rows of 4,096 tokens, forward; pytorch/pytorch 121845).
    "sdpa": 0.3,
    "sdpa_elsewhere": 0.6,  # the same on what is not NVIDIA's, whose kernels are others; assumed
    "attention_hopper": 6.0,  # matrix FLOP/s of old instructions on Hopper and later, over fp32 FLOP/s of vectors
    "elementwise": 2.25,  # of the counted bytes
    "compiled": 0.45,  # share of elementwise bytes left where kernels are fused
    "cached": 0.3,  # share of its time where values stay in the last-level cache, four times as fast and more
    "autocast_bytes": 1.5,  # memory-bound work under autocast, where values change type between kernels
    "autocast_launches": 1.4,  # kernels under autocast, casts included
    "scaler": 0.5,  # share of the launches that the fp16 gradient scaler's synchronisation lays bare
    "loss_bytes": 40.0,  # per vocabulary entry and token
    # The same of a head in tiles, counted in its kernels: widths of a logit that are moved, and bytes where they are
    # folded in torch, without Triton.
    "tiled_loss_widths": 6.0,
    "folded_loss_bytes": 170.0,
    # Of a loss that writes its gradient over logits in 16 bits: written, read twice, written, read by two products.
    "written_over_loss_bytes": 12.0,
    "dequantise_8bit": 10.0,  # the same of an 8-bit base, whose forward products stay in integers
    "dequantise": 20.5,  # bytes per parameter and pass
    "launch": 1.1,  # of the host time of a kernel launch, in loops over tensors
    # Of a forward pass's launches: modules in Python launch it, the autograd engine the twice as many of the backward
    # pass. Their sum is what the calibration runs have; how it is shared, 0.9 ms for a block's forward pass in
    # transformers, as its generation of words has it.
    "launch_forward": 1.9,
    "launch_backward": 1.4,
    # Of a forward pass's launches, what Megatron's selective recomputation repeats: attention, and states of random
    # numbers around it. 0.8 of 1.9 ms a block were published of Qwen3-4B on an H200, beside steps without it
    # (nagarajankarthik/paip); as these, not fitted.
    "attention_launches": 0.4,
    # Of a call to a collective (torch's checks and records, a stream that waits): 0.11 ms in the same source with two
    # tensor-parallel ranks, 0.08 with the sequence shared out.
    "collective_call_s": 8e-5,
    # Of a forward pass's launches in transformers' generate: 25 to 49 ms a token were told of 7 B and 36 ms of 13 B
    # (NVIDIA/FasterTransformer 506, foundation-model-stack 34 and 69); not fitted.
    "generate_launch": 2.2,
    "link": 0.55,  # share of the link's rate that collectives reach
    # The same of a port of the network, through which a group with one GPU on each machine leaves it: 41 of 50 GB/s
    # with 32 MB, all with large messages (NVIDIA/nccl-tests 232: one H100 on each of two machines).
    "port": 0.85,
    "overlap": 0.55,  # part of the shorter of compute and collectives that does not hide
    "fsdp_layer_s": 0.005,  # host time of FSDP for each block and micro-batch, accelerate
    "fsdp_layer_native_s": 0.001,
    # DeepSpeed's, of a gathered weight in one pass: its module's hooks, its gather cut in a piece for each rank, the
    # gradient's reduction, which a bucket smaller than the weight makes one of its own (transformers' "auto" is the
    # width squared). 3 ms for five weights of a block of Qwen's, as published runs with hardly any tokens have it.
    "zero3_weight_pass_s": 0.0006,
    # Megatron-FSDP's, around every module and for every gradient: 1.8 ms a block and micro-batch were published of
    # Qwen3-4B on an H200 (nagarajankarthik/paip), the same on one GPU; as these, not fitted.
    "megatron_fsdp_layer_pass_s": 0.0009,
    "expert": 1.1,  # experts that get more tokens than others, against a dense product of the same size
    # Share of the vector rate that large fp32 products reach: 14 of a V100's 15.7 TFLOP/s
    # (qhduan/transformers-benchmarks); a training step takes the share `matmul` of that, as of others.
    "fp32": 0.89,
    # Slowdown of the head's products in 16 bits where the vocabulary is no multiple of 8: matrix units want 16 bytes
    # (NVIDIA's guide to mixed precision). Padding GPT-2's 50,257 words to 50,304 was told as 4 % of a step on an RTX
    # 3090 (RobertRiachi/nanoPALM 6), as 25 % on an A100 by nanoGPT's author.
    "unaligned": 2.0,
}

# What compared runs cover: stack, GPU and what is trained (`doubts.covered_by`), with the fewest and most tokens of a
# micro-batch (`compared` in benchmarks/leave_one_out.py, over the calibration runs and the two further tables that the
# formula meets within its bar); elsewhere it is less sure. Loops of which nothing is known do not count.
COMPARED: dict[tuple[str, str, str], tuple[float, float]] = {
    ("cuda", "A100-80GB", "full"): (32768, 65536),
    ("cuda", "H100", "full"): (4096, 32768),
    ("cuda", "L40S", "full"): (4096, 16384),
    ("cuda", "RTX4090", "full"): (4096, 16384),
    ("cuda", "RTX5060-Ti", "full"): (10240, 10240),
    ("cuda", "RTXPRO6000", "full"): (4096, 32768),
    ("deepspeed", "V100", "encoder"): (1536, 3072),
    ("deepspeed", "V100-32GB", "encoder"): (1536, 12288),
    ("hf", "A100-80GB", "adapter"): (256, 65536),
    ("hf", "A100-80GB", "full"): (256, 65536),
    ("hf", "A100-80GB", "quantised"): (256, 131072),
    ("hf", "A10G", "encoder"): (8192, 8192),
    ("hf", "A800-80GB", "full"): (8192, 8192),
    ("hf", "Gaudi2", "adapter"): (256, 16384),
    ("hf", "Gaudi2", "encoder"): (12288, 12288),
    ("hf", "Gaudi2", "full"): (4096, 49152),
    ("hf", "Gaudi3", "adapter"): (256, 16384),
    ("hf", "Gaudi3", "encoder"): (12288, 12288),
    ("hf", "Gaudi3", "full"): (4096, 49152),
    ("hf", "H100", "adapter"): (8192, 8192),
    ("hf", "H20", "full"): (16384, 16384),
    ("hf", "L4", "full"): (8192, 8192),
    ("hf", "L4", "quantised"): (2048, 8192),
    ("hf", "L40S", "adapter"): (1225, 1225),
    ("hf", "L40S", "full"): (1225, 1225),
    ("hf", "RTX3090", "adapter"): (512, 12288),
    ("hf", "RTX3090", "quantised"): (4096, 20480),
    ("hf", "RTX4090", "adapter"): (8192, 20480),
    ("hf", "RTX4090", "full"): (16384, 131072),
    ("hf", "RTX4090", "quantised"): (4096, 24576),
    ("hf", "TITAN-RTX", "encoder"): (4096, 4096),
    ("hf", "V100", "encoder"): (512, 4096),
    ("hf", "V100-32GB", "encoder"): (2048, 32768),
    ("hf", "V100-32GB", "full"): (1024, 8192),
    ("internevo", "A100-80GB", "full"): (4096, 16384),
    ("llm-foundry", "A100", "full"): (8192, 53248),
    ("llm-foundry", "A100-80GB", "full"): (4096, 98304),
    ("llm-foundry", "H100", "full"): (4096, 98304),
    ("megatron", "H100", "adapter"): (4096, 4096),
    ("megatron", "H100", "full"): (4096, 4096),
    ("paddle", "A100-80GB", "full"): (4096, 8192),
    ("torchtitan", "B200", "full"): (8192, 8192),
    ("torchtitan", "H100", "full"): (4096, 8192),
    ("torchtitan", "H100-96GB", "full"): (8192, 32768),
    ("torchtitan", "MI300X", "full"): (8192, 8192),
    ("torchtune", "A100-80GB", "adapter"): (4096, 8192),
    ("torchtune", "A100-80GB", "full"): (4096, 16384),
    ("torchtune", "A100-80GB", "quantised"): (4096, 8192),
    ("torchtune", "RTX4090", "adapter"): (4096, 8192),
    ("torchtune", "RTX4090", "full"): (4096, 8192),
    ("torchtune", "RTX4090", "quantised"): (4096, 8192),
    ("torchtune", "RTXA6000", "adapter"): (4096, 4096),
    ("torchtune", "RTXA6000", "full"): (4096, 4096),
}
