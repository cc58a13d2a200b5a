"""What is known of an accelerator: who said so, in which order, and the traps."""

from __future__ import annotations

import pytest

from modeltiers.domain.accelerators import Device, Known, Unresolved, Wanted, quantity_bytes, resolve
from modeltiers.domain.memory import GIB, MIB
from modeltiers.domain.views import NodeView

H100 = "NVIDIA-H100-80GB-HBM3"
PRODUCT = "nvidia.com/gpu.product"


def node(
    product: str = H100, gpus: int = 8, *, ready: bool = True, resource: str = "nvidia.com/gpu", **labels: str
) -> NodeView:
    """A node with accelerators; label names have underscores for the signs that Python does not take."""
    named = {"nvidia.com/" + key.replace("__", "-").replace("_", "."): value for key, value in labels.items()}
    return NodeView("n", {PRODUCT: product, **named}, {resource: gpus}, ready)


def known(answer: Device | Unresolved) -> Device:
    """The device; a failure shows the message."""
    assert isinstance(answer, Device), answer
    return answer


def unknown(answer: Device | Unresolved) -> Unresolved:
    """The question that is open."""
    assert isinstance(answer, Unresolved), answer
    return answer


def test_bundled_table_when_nodes_may_not_be_seen() -> None:
    """H100: 81559 MiB, eight in a node, and both called what they are."""
    device = known(resolve(Wanted("h100", H100), None))
    assert (device.memory, device.gpus_per_node) == (81_559 * MIB, 8)
    assert (device.product_label, device.resource) == (PRODUCT, "nvidia.com/gpu")
    assert "bundled table 2026-11-24" in device.facts
    assert "nodes may not be seen" in device.facts
    assert device.node_size_assumed


def test_node_label_and_largest_node_come_before_the_table() -> None:
    """What stands there counts."""
    device = known(resolve(Wanted("h100", H100), [node(gpus=2, gpu_memory="81000"), node(gpus=4)]))
    assert (device.memory, device.gpus_per_node) == (81_000 * MIB, 4)
    assert device.facts == "memory 81000 MiB: node label; 4 per node: largest of 2 nodes"
    assert not device.node_size_assumed


def test_the_smallest_label_counts_where_nodes_differ() -> None:
    """The tier may land on any of them."""
    device = known(resolve(Wanted("h100", H100), [node(gpu_memory="81559"), node(gpu_memory="81000")]))
    assert device.memory == 81_000 * MIB


def test_the_spec_comes_first() -> None:
    """And a node that disagrees is a warning."""
    wanted = Wanted("h100", H100, memory=90 * GIB, gpus_per_node=16)
    device = known(resolve(wanted, [node(gpus=8, gpu_memory="81559")]))
    assert (device.memory, device.gpus_per_node) == (90 * GIB, 16)
    assert device.facts.endswith("16 per node: spec")
    assert [warning.split()[0] for warning in device.warnings] == [
        "spec.accelerators[0].memory",
        "spec.accelerators[0].gpusPerNode",
    ]


def test_settings_come_before_the_table() -> None:
    """The administrator knows this cluster."""
    own = Known(H100, 70 * GIB, 2)
    device = known(resolve(Wanted("h100", H100), [], [own]))
    assert (device.memory, device.gpus_per_node) == (70 * GIB, 2)
    assert "settings" in device.facts
    assert not device.node_size_assumed


def test_settings_teach_label_and_resource() -> None:
    """For clouds that label their nodes in their own way."""
    own = Known("nvidia-l4", 23_034 * MIB, 4, "cloud.google.com/gke-accelerator", "nvidia.com/gpu")
    nodes = [NodeView("n", {"cloud.google.com/gke-accelerator": "nvidia-l4"}, {"nvidia.com/gpu": 2}, schedulable=True)]
    device = known(resolve(Wanted("l4", "nvidia-l4"), nodes, [own]))
    assert (device.product_label, device.gpus_per_node) == ("cloud.google.com/gke-accelerator", 2)


def test_an_empty_pool_is_sized_from_the_table() -> None:
    """A node autoscaler may start from zero."""
    assert "no node offers any" in known(resolve(Wanted("h100", H100), [])).facts


def test_cordoned_nodes_count_only_where_there_is_no_other() -> None:
    """A node in maintenance comes back."""
    assert known(resolve(Wanted("h100", H100), [node(gpus=8, ready=False), node(gpus=4)])).gpus_per_node == 4
    assert known(resolve(Wanted("h100", H100), [node(gpus=4, ready=False)])).gpus_per_node == 4


def test_an_unknown_product_names_the_field() -> None:
    """Memory is what nobody knows."""
    answer = unknown(resolve(Wanted("new", "NVIDIA-X1000", path="spec.accelerators[2]"), []))
    assert answer.path == "spec.accelerators[2].memory"
    assert "give spec.accelerators[2].memory" in answer.message


def test_memory_alone_is_not_enough() -> None:
    """How many stand in a node decides what can be proposed."""
    answer = unknown(resolve(Wanted("new", "NVIDIA-X1000", memory=GIB), []))
    assert answer.path == "spec.accelerators[0].gpusPerNode"


@pytest.mark.parametrize("memory", [0, 80, 81_559, 10**17])
def test_a_memory_without_its_unit_is_a_slip(memory: int) -> None:
    """80 is 80 bytes to Kubernetes; an answer about a device of 80 bytes would help nobody."""
    answer = unknown(resolve(Wanted("h100", H100, memory=memory), None))
    assert answer.path == "spec.accelerators[0].memory"
    assert "is the unit right?" in answer.message


def test_shared_products_are_refused() -> None:
    """Time slicing: every share reports the whole memory."""
    answer = unknown(resolve(Wanted("h100", f"{H100}-SHARED", memory=80 * GIB, gpus_per_node=8), None))
    assert answer.path == "spec.accelerators[0].product"
    assert "time slicing" in answer.message


def test_nodes_that_share_are_seen_through() -> None:
    """A plain product name on nodes that all share; beside one that does not, only that one counts."""
    shared = node(gpus=32, gpu_sharing__strategy="time-slicing")
    assert unknown(resolve(Wanted("h100", H100), [shared])).path.endswith("product")
    assert known(resolve(Wanted("h100", H100), [shared, node(gpus=8)])).gpus_per_node == 8


def test_shared_resources_are_refused() -> None:
    """Renamed shares have a resource of their own."""
    assert unknown(resolve(Wanted("h100", H100, resource="nvidia.com/gpu.shared"), None))


def test_slices_work_alone_and_are_not_in_the_table() -> None:
    """MIG: the table knows whole accelerators, and slices cannot work together."""
    wanted = Wanted("slice", H100, resource="nvidia.com/mig-3g.40gb")
    assert unknown(resolve(wanted, [])).path.endswith("memory")
    labels = {PRODUCT: H100, "nvidia.com/gpu.memory": "81559", "nvidia.com/mig-3g.40gb.memory": "40448"}
    device = known(resolve(wanted, [NodeView("n", labels, {"nvidia.com/mig-3g.40gb": 2}, schedulable=True)]))
    assert (device.memory, device.gpus_per_node, device.alone) == (40_448 * MIB, 1, True)


def test_slices_of_the_single_strategy() -> None:
    """The product itself says so, and the memory label is the slice's."""
    product = "NVIDIA-A100-SXM4-40GB-MIG-3g.20gb"
    device = known(resolve(Wanted("slice", product), [node(product, gpus=2, gpu_memory="19968")]))
    assert (device.memory, device.gpus_per_node) == (19_968 * MIB, 1)


def test_amd_has_its_own_label_and_resource() -> None:
    """And its brand number is read as decimal, the smaller reading."""
    device = known(resolve(Wanted("mi300x", "AMD_Instinct_MI300X_OAM"), None))
    assert (device.product_label, device.resource) == ("amd.com/gpu.product-name", "amd.com/gpu")
    assert device.memory <= 192 * 10**9


def test_amd_memory_label() -> None:
    """The labeller writes 192G."""
    labels = {"amd.com/gpu.product-name": "AMD_New", "amd.com/gpu.vram": "256G"}
    device = known(resolve(Wanted("new", "AMD_New"), [NodeView("n", labels, {"amd.com/gpu": 8}, schedulable=True)]))
    assert device.memory == 256 * 10**9


@pytest.mark.parametrize("label", ["", "many", "-1", "81559MiB", "9" * 30, "\uff18\uff11"])
def test_odd_labels_are_no_facts(label: str) -> None:
    """The table is asked instead."""
    assert known(resolve(Wanted("h100", H100), [node(gpu_memory=label)])).memory == 81_559 * MIB


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80Gi", 80 * GIB),
        ("81559Mi", 81_559 * MIB),
        ("1.5Gi", GIB * 3 // 2),
        ("192G", 192 * 10**9),
        ("100", 100),
        ("1500m", 1),
        ("0.5", 0),
        ("1e3", None),
        ("", None),
        ("Gi", None),
    ],
)
def test_quantities(text: str, expected: int | None) -> None:
    """Kubernetes quantities as whole bytes, rounded down."""
    assert expected == quantity_bytes(text)
