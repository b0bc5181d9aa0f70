"""Computes pi on all the machines of a job. Run by examples/mpi/job.yaml."""

import os
import platform

from mpi4py import MPI

world = MPI.COMM_WORLD
rank, size = world.Get_rank(), world.Get_size()
steps = 1_000_000
width = 1 / steps
part = sum(4 / (1 + ((i + 0.5) * width) ** 2) for i in range(rank, steps, size)) * width
pi = world.allreduce(part)
where = world.gather((rank, platform.node(), os.environ["SHOAL_NODE_RANK"]))
if rank == 0:
    for other, machine, node in where:
        print(f"process {other} was on node {node}, {machine}")
    print(f"pi is {pi:.9f}, by {size} processes on {len({m for _, m, _ in where})} machines")
