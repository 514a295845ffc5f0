"""Memory that is kept for the next step, and given back."""

from __future__ import annotations

import subprocess
import sys

import pytest

# in a process of its own: it asks the C library to keep memory for as long as it lives
HOLES = """
import torch
from melcli.models.hardware import give_back_freed_memory, keep_freed_memory

def held():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) // 1024

keep_freed_memory()
blocks = [torch.ones(1 << 18) for _ in range(200)]  # a megabyte each
del blocks[::2]
kept = held()
give_back_freed_memory()
print(kept - held())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the C library of Linux")
def test_what_is_free_between_blocks_is_given_back() -> None:
    ran = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    assert int(ran.stdout) > 80  # of 100 megabytes


def test_a_thread_that_computes_alone_leaves_the_others_as_they_are():
    code = """
import threading, torch
from melcli.models.hardware import alone_in_thread
torch.set_num_threads(3)
found = []
def compute(first):
    first()
    torch.randn(300, 300) @ torch.randn(300, 300)
    found.append(torch.get_num_threads())
for first in (alone_in_thread, lambda: None):
    thread = threading.Thread(target=compute, args=(first,))
    thread.start()
    thread.join()
print(found, torch.get_num_threads())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[1, 3] 3"
