"""Ports of clusters that run side by side."""

import socket

from e2e.cluster import ports


def test_two_claims_never_share_a_port() -> None:
    """The first is still held when the second is made."""
    first, one = ports.claim()
    second, two = ports.claim(first.base)
    with one, two:
        assert first.base != second.base
        assert abs(first.base - second.base) >= ports.BLOCK


def test_an_earlier_choice_is_kept_when_it_is_free() -> None:
    """A kubeconfig in use stays right after a restart."""
    first, holder = ports.claim()
    holder.close()
    again, holder = ports.claim(first.base)
    with holder:
        assert again == first


def test_a_block_with_a_listener_is_passed_over() -> None:
    """Somebody else's program is no reason to fail."""
    chosen, holder = ports.claim()
    holder.close()
    with socket.create_server(("127.0.0.1", chosen.apiserver)):
        other, holder = ports.claim(chosen.base)
        with holder:
            assert other != chosen


def test_the_ports_of_a_block_differ_and_fit() -> None:
    """No two programs get the same one."""
    block = ports.Ports(20000)
    numbers = [
        block.etcd,
        block.etcd_peer,
        block.apiserver,
        block.controller_manager,
        block.scheduler,
        block.kwok,
    ]
    assert len(set(numbers)) == len(numbers)
    assert all(20000 <= number < 20000 + ports.BLOCK for number in numbers)


def test_blocks_lie_below_the_ports_of_outgoing_connections() -> None:
    """32768 is where Linux begins by default; a connection could take a port between the check and its use."""
    assert ports.BLOCKS.stop < 32768
