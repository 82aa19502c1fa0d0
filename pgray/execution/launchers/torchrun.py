"""Launcher `torchrun`, the default: one agent per node; the agents of several nodes meet at a c10d store on the first."""

import sys
from pathlib import Path

from pgray.execution.launchers.base import Launcher, LaunchSettings, NodeRendezvous, trainer_command

_JOIN_S = 300  # how long nodes wait for each other


class Torchrun(Launcher):
    name = "torchrun"

    def command(self, settings: LaunchSettings, job: Path, rendezvous: NodeRendezvous) -> list[str]:
        machine = settings.machine
        nodes = ["--standalone"]
        if machine.nodes > 1:
            # Agents take their group ranks in the order of their addresses, see pgray/execution/multinode.py.
            nodes = [
                f"--nnodes={machine.nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={rendezvous.endpoint}",
                f"--rdzv-id={rendezvous.token}", f"--rdzv-conf=is_host={int(rendezvous.rank == 0)},join_timeout={_JOIN_S}",
                f"--local-addr={rendezvous.address}",
            ]  # fmt: skip
        start = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={machine.nproc}", *nodes]
        return [*start, "--no-python", *trainer_command(settings, job)]
