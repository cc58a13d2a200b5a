"""What an accelerator has: memory, how many stand in a node, how it is asked for. Each fact says who said so.

It takes the spec's word first, then the nodes', then the administrator's, then a bundled table of what drivers report.
What nobody knows stays unknown, with the field that would say it. It refuses to know which model is to run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from modeltiers.domain.views import NodeView

MIB: Final = 1024**2
GIB: Final = 1024**3
TABLE_DATE: Final = "2026-11-24"
LEAST_MEMORY: Final = 1 * GIB
MOST_MEMORY: Final = 16 * 1024 * GIB
"""Outside these, a memory is a slip of the unit."""

NVIDIA_PRODUCT: Final = "nvidia.com/gpu.product"
NVIDIA_MEMORY: Final = "nvidia.com/gpu.memory"
NVIDIA_SHARING: Final = "nvidia.com/gpu.sharing-strategy"
NVIDIA_RESOURCE: Final = "nvidia.com/gpu"
AMD_PRODUCT: Final = "amd.com/gpu.product-name"
AMD_MEMORY: Final = "amd.com/gpu.vram"
AMD_RESOURCE: Final = "amd.com/gpu"


@dataclass(frozen=True, slots=True)
class Known:
    """An accelerator as a table or the administrator describes it. Memory in bytes."""

    product: str
    memory: int
    gpus_per_node: int
    product_label: str | None = None
    resource: str | None = None
    source: str = "settings"


@dataclass(frozen=True, slots=True)
class Wanted:
    """An accelerator as the spec asks for it; what it leaves out is found elsewhere. Memory in bytes."""

    name: str
    product: str
    product_label: str | None = None
    resource: str | None = None
    memory: int | None = None
    gpus_per_node: int | None = None
    path: str = "spec.accelerators[0]"


@dataclass(frozen=True, slots=True)
class Device:
    """An accelerator with everything that sizing and scheduling need. Memory in bytes, as the driver reports it."""

    name: str
    product: str
    product_label: str
    resource: str
    memory: int
    gpus_per_node: int
    facts: str
    """Where memory and count came from, in words."""
    warnings: tuple[str, ...] = ()
    """What may be wrong with them."""
    node_size_assumed: bool = False
    """Whether the count is that of the largest common node, since nobody said how many stand in these."""
    alone: bool = False
    """A slice of an accelerator, which cannot work together with others."""


@dataclass(frozen=True, slots=True)
class Unresolved:
    """An accelerator of which something needed is not known: the field that would say it, and why."""

    name: str
    path: str
    message: str


def _nvidia(product: str, mib: int, per_node: int, source: str) -> Known:
    return Known(product, mib * MIB, per_node, NVIDIA_PRODUCT, NVIDIA_RESOURCE, source)


def _amd(product: str, gigabytes: int, per_node: int, source: str) -> Known:
    return Known(product, gigabytes * 10**9, per_node, AMD_PRODUCT, AMD_RESOURCE, source)


_SMI, _BRAND = "nvidia-smi", "brand number, taken as decimal"
# Memory as nvidia-smi and GPU feature discovery report it; where only the brand number is known it is taken as decimal
# gigabytes, the smaller reading. The count is that of the largest common node.
TABLE: Final[Mapping[str, Known]] = {
    known.product: known
    for known in (
        _nvidia("Tesla-T4", 15360, 4, _SMI),
        _nvidia("NVIDIA-L4", 23034, 8, _SMI),
        _nvidia("NVIDIA-A10G", 23028, 8, _SMI),
        _nvidia("NVIDIA-L40S", 46068, 8, _SMI),
        _nvidia("NVIDIA-GeForce-RTX-4090", 24564, 8, _SMI),
        _nvidia("NVIDIA-A100-SXM4-40GB", 40960, 8, _SMI),
        _nvidia("NVIDIA-A100-SXM4-80GB", 81920, 8, _SMI),
        _nvidia("NVIDIA-A100-PCIE-80GB", 81920, 8, _SMI),
        _nvidia("NVIDIA-H100-80GB-HBM3", 81559, 8, _SMI),
        _nvidia("NVIDIA-H100-PCIe", 81559, 8, _SMI),
        _nvidia("NVIDIA-H200", 143771, 8, _SMI),
        _nvidia("NVIDIA-B200", 183359, 8, _SMI),
        _nvidia("NVIDIA-GB200", 189471, 4, _SMI),
        _nvidia("NVIDIA-B300-SXM6-AC", 268 * 10**9 // MIB, 8, _BRAND),
        _nvidia("NVIDIA-GB300", 288 * 10**9 // MIB, 4, _BRAND),
        _amd("AMD_Instinct_MI300X_OAM", 192, 8, _BRAND),
        _amd("AMD_Instinct_MI325_OAM", 256, 8, _BRAND),
    )
}


def resolve(wanted: Wanted, nodes: Sequence[NodeView] | None, known: Sequence[Known] = ()) -> Device | Unresolved:
    """Find out what an accelerator has. `nodes` is None where they may not be seen; `known` is the administrator's."""
    table = next((k for k in known if k.product == wanted.product), None) or TABLE.get(wanted.product)
    label, resource = _keys(wanted, table)
    seen = [node for node in nodes or () if node.labels.get(label) == wanted.product]
    if shared := _shared(wanted, resource, seen):
        return shared
    seen = [node for node in seen if not _shares(node)]
    why = "nodes may not be seen" if nodes is None else f"{len(seen)} nodes carry {label}={wanted.product}"
    memory = _memory(wanted, resource, seen, table)
    if problem := _memory_problem(wanted, memory, why):
        return Unresolved(wanted.name, f"{wanted.path}.memory", problem)
    count = _count(wanted, resource, seen, table, nodes is not None)
    if memory is None or count is None:
        path = f"{wanted.path}.gpusPerNode"
        message = (
            f"it is not known how many {wanted.product} stand in a node: {why}, none offers {resource}. Give {path}"
        )
        return Unresolved(wanted.name, path, message)
    alone = _is_slice(wanted, resource)
    return Device(
        name=wanted.name,
        product=wanted.product,
        product_label=label,
        resource=resource,
        memory=memory[0],
        gpus_per_node=1 if alone else count[0],
        facts=f"memory {memory[0] // MIB} MiB: {memory[1]}; {count[0]} per node: {count[1]}"[:256],
        node_size_assumed=count[1].startswith("bundled table"),
        warnings=_warnings(wanted, resource, seen, memory[0]),
        alone=alone,
    )


def _memory_problem(wanted: Wanted, memory: tuple[int, str] | None, why: str) -> str | None:
    way_out = f"{wanted.path}.memory as the driver reports it, for example 81559Mi"
    if memory is None:
        return (
            f"memory of {wanted.product} is not known: {why}, and it is not in the bundled table ({TABLE_DATE}). "
            f"Check the product, or give {way_out}"
        )
    if not LEAST_MEMORY <= memory[0] <= MOST_MEMORY:
        return f"{wanted.product} has {memory[0]} bytes of memory ({memory[1]}): is the unit right? Give {way_out}"
    return None


def _keys(wanted: Wanted, table: Known | None) -> tuple[str, str]:
    """The node label that names the product, and the resource it is requested by."""
    amd = wanted.product.startswith("AMD")
    label = wanted.product_label or (table and table.product_label) or (AMD_PRODUCT if amd else NVIDIA_PRODUCT)
    resource = wanted.resource or (table and table.resource) or (AMD_RESOURCE if amd else NVIDIA_RESOURCE)
    return label, resource


def _is_slice(wanted: Wanted, resource: str) -> bool:
    return "/mig-" in resource or "-MIG-" in wanted.product


def _shared(wanted: Wanted, resource: str, seen: Sequence[NodeView]) -> Unresolved | None:
    """Shares report the whole memory, and vLLM does not start when another process holds part of it."""
    said = wanted.product.endswith("-SHARED") or resource.endswith(".shared")
    if not said and not (seen and all(_shares(node) for node in seen)):
        return None
    message = (
        f"{wanted.product} ({resource}) is shared between pods (time slicing or MPS): every share reports the memory "
        f"of the whole accelerator, and vLLM stops at start when another process holds part of it. "
        f"Name an unshared product in {wanted.path}.product"
    )
    return Unresolved(wanted.name, f"{wanted.path}.product", message)


def _shares(node: NodeView) -> bool:
    return node.labels.get(NVIDIA_SHARING, "none") != "none"


def _memory(wanted: Wanted, resource: str, seen: Sequence[NodeView], table: Known | None) -> tuple[int, str] | None:
    if wanted.memory is not None:
        return wanted.memory, "spec"
    labelled = [found for node in seen if (found := node_memory(node.labels, resource)) is not None]
    if labelled:
        return min(labelled), "node label"
    if table is None or _is_slice(wanted, resource):
        return None  # a table knows whole accelerators only
    return table.memory, _said(table)


def node_memory(labels: Mapping[str, str], resource: str) -> int | None:
    """Memory of one accelerator in bytes as a node's labels say it; None where they do not."""
    mib = labels.get(f"{resource}.memory" if "/mig-" in resource else NVIDIA_MEMORY, "")
    if mib.isascii() and mib.isdigit() and 0 < len(mib) < 10:
        return int(mib) * MIB
    # AMD's labeller writes 192G; taken as decimal, the smaller reading.
    vram = re.fullmatch(r"([0-9]{1,6})G", labels.get(AMD_MEMORY, ""), re.ASCII)
    return int(vram[1]) * 10**9 if vram else None


def _count(
    wanted: Wanted, resource: str, seen: Sequence[NodeView], table: Known | None, may_see: bool
) -> tuple[int, str] | None:
    if wanted.gpus_per_node is not None:
        return wanted.gpus_per_node, "spec"
    usable = [node for node in seen if node.schedulable] or seen
    largest = max((node.allocatable.get(resource, 0) for node in usable), default=0)
    if largest:
        return largest, f"largest of {len(usable)} nodes"
    if _is_slice(wanted, resource):
        return 1, "a slice works alone"
    if table is None:
        return None
    return table.gpus_per_node, f"{_said(table)}; {'no node offers any' if may_see else 'nodes may not be seen'}"


def _said(table: Known) -> str:
    return "settings" if table.source == "settings" else f"bundled table {TABLE_DATE} ({table.source})"


def _warnings(wanted: Wanted, resource: str, seen: Sequence[NodeView], memory: int) -> tuple[str, ...]:
    found: list[str] = []
    labelled = [m for node in seen if (m := node_memory(node.labels, resource)) is not None]
    if labelled and min(labelled) < memory:
        found.append(
            f"{wanted.path}.memory says {memory // MIB} MiB, a node's label {min(labelled) // MIB} MiB: "
            f"an engine sized for more than there is does not start"
        )
    largest = max((node.allocatable.get(resource, 0) for node in seen), default=0)
    if wanted.gpus_per_node and largest and wanted.gpus_per_node > largest:
        found.append(f"{wanted.path}.gpusPerNode says {wanted.gpus_per_node}, the largest node has {largest}")
    return tuple(found)


_SCALE: Final[Mapping[str, int]] = {
    "": 1000, "m": 1, "k": 10**6, "M": 10**9, "G": 10**12, "T": 10**15, "P": 10**18,
    "Ki": 1000 << 10, "Mi": 1000 << 20, "Gi": 1000 << 30, "Ti": 1000 << 40, "Pi": 1000 << 50,
}  # fmt: skip


def quantity_bytes(text: str) -> int | None:
    """A Kubernetes quantity as whole bytes, rounded down; None when it is not one."""
    match = re.fullmatch(r"([0-9]{1,20})(?:\.([0-9]{1,3}))?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?", text, re.ASCII)
    if match is None:
        return None
    thousandths = int(match[1]) * 1000 + int((match[2] or "").ljust(3, "0"))
    return thousandths * _SCALE[match[3] or ""] // 1_000_000
