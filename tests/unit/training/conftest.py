"""One thread: the models are tiny, and threads that wait for each other on a busy machine take a hundred times as long."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for processes that a test starts

try:
    import torch
except ModuleNotFoundError:
    pass
else:
    torch.set_num_threads(1)
