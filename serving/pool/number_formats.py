"""What this machine's processor can compute quickly, from what Linux says of it; torch stays out of the controller."""

from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_PRODUCTS_OF_BF16 = (frozenset(("avx512bw", "avx512vl", "avx512dq")), frozenset(("avx_ne_convert",)))


def has_bf16_products(cpu_info: Path = _CPU_INFO) -> bool:
    """Return False for an x86 processor on which PyTorch multiplies in bf16 number by number.

    PyTorch's own condition (`mkldnn_bf16_device_check`). What is not known is taken to be able.
    """
    try:
        text = cpu_info.read_text(encoding="utf-8")
    except OSError:
        return True
    line = next((line for line in text.splitlines() if line.startswith("flags")), None)
    if line is None:
        return True
    flags = frozenset(line.partition(":")[2].split())
    return any(needed <= flags for needed in _PRODUCTS_OF_BF16)
