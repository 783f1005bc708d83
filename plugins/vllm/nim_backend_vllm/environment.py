"""The variables this backend reads."""

from __future__ import annotations

from typing import Final

from nim_core.types import EnvVar

ENVIRONMENT: Final = (
    EnvVar(name="NIM_TENSOR_PARALLEL_SIZE", summary="GPUs that each layer is spread over", kind="integer"),
    EnvVar(
        name="NIM_PIPELINE_PARALLEL_SIZE", summary="groups of GPUs that the layers are dealt out to", kind="integer"
    ),
    EnvVar(
        name="NIM_MAX_MODEL_LEN",
        summary="longest context, in tokens; a whole number, --max-model-len takes 128k and auto as well",
    ),
    EnvVar(name="NIM_GPU_MEM_FRACTION", summary="part of each GPU's memory that vLLM may use, above 0 and up to 1"),
    EnvVar(name="NIM_DISABLE_CUDA_GRAPH", summary="run without CUDA graphs and compilation", kind="flag"),
    EnvVar(name="NIM_TRUST_CUSTOM_CODE", summary="run Python code that comes with the model", kind="flag"),
    EnvVar(name="NIM_DRAFT_MODEL_PATH", summary="folder of a small model that drafts tokens (speculative decoding)"),
    EnvVar(
        name="NIM_STREAM_MODEL",
        summary="have vLLM read s3:// and gs:// models itself: nothing is downloaded, and nothing verified",
        kind="flag",
    ),
    EnvVar(name="NIM_MAX_LORA_RANK", summary="highest rank of LoRA adapters that come while it serves", kind="integer"),
    EnvVar(name="NIM_MAX_GPU_LORAS", summary="LoRA adapters that requests in one batch may use", kind="integer"),
    EnvVar(name="NIM_MAX_CPU_LORAS", summary="LoRA adapters kept in memory", kind="integer"),
    EnvVar(name="NIM_LOG_LEVEL", summary="log level of vLLM, unless VLLM_LOGGING_LEVEL is set"),
    EnvVar(name="VLLM_LOGGING_LEVEL", summary="log level of vLLM alone"),
    EnvVar(name="VLLM_API_KEY", summary="key that clients have to bring", secret=True),
    EnvVar(name="VLLM_PORT", summary="first port between vLLM's processes; an address that Kubernetes sets is ignored"),
    EnvVar(name="VLLM_HOST_IP", summary="address of this machine, as the other nodes reach it"),
    EnvVar(name="VLLM_NO_USAGE_STATS", summary="1, unless set: vLLM reports nothing to its makers"),
    EnvVar(name="DO_NOT_TRACK", summary="1, unless set: nobody reports anything to anybody"),
    EnvVar(name="VLLM_CPU_KVCACHE_SPACE", summary="GiB for the KV cache on processors", kind="integer"),
    EnvVar(name="VLLM_CPU_OMP_THREADS_BIND", summary="cores of each process on processors, such as 0-3|4-7"),
    EnvVar(name="AWS_ENDPOINT_URL_S3", summary="URL of the store that s3:// models are streamed from", kind="url"),
    EnvVar(name="AWS_ENDPOINT_URL", summary="URL of the store, where the former is not set", kind="url"),
    EnvVar(name="AWS_S3_USE_PATH_STYLE", summary="stream from https://host/bucket/key", kind="flag"),
    EnvVar(name="AWS_S3_ADDRESSING_STYLE", summary="virtual, path or auto, for streaming"),
    EnvVar(name="AWS_NO_SIGN_REQUEST", summary="stream from public buckets as a stranger", kind="flag"),
    EnvVar(name="PATH", summary="where vllm is looked for, if it is not installed beside this program"),
)
