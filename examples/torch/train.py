"""Trains on the handwritten digits with PyTorch, one process on each machine of a job.

The job's variables MASTER_ADDR, MASTER_PORT, RANK and WORLD_SIZE are all that
torch.distributed needs. Run by examples/torch/job.yaml.
"""

import os

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel

torch.set_num_threads(1)
torch.manual_seed(1)
dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()

digits = load_digits()
x = torch.tensor(digits.data / 16, dtype=torch.float32)
y = torch.tensor(digits.target)
order = torch.randperm(len(x))  # the same on all, by the seed
test, train = order[:360], order[360:]
mine = train[rank::size]

model = DistributedDataParallel(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
for step in range(60):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x[mine]), y[mine])
    loss.backward()
    optimizer.step()

# Each has seen its own part of the data; the gradients, and so the weights, are those of all of it.
with torch.no_grad():
    answers = model.module(x[test])
    loss = nn.functional.cross_entropy(answers, y[test])
    accuracy = (answers.argmax(1) == y[test]).float().mean()
losses = [torch.zeros(()) for _ in range(size)]
dist.all_gather(losses, loss)
agree = all(torch.equal(other, loss) for other in losses)
print(f"of {size} processes, with {len(mine)} of {len(train)} digits each: loss {loss:.6f}, accuracy {accuracy:.3f}, agreed: {agree}", flush=True)
print(f"this was rank {rank} on node {os.environ['SHOAL_NODE_RANK']}", flush=True)
dist.destroy_process_group()
if not agree:
    raise SystemExit("the processes do not agree")
