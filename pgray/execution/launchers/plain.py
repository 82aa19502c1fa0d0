"""Launcher `plain`: starts the trainer itself, as a single process."""

from pathlib import Path

from pgray.execution.launchers.base import Launcher, LaunchSettings, NodeRendezvous, trainer_command
from trainer.run.config import Machine


class Plain(Launcher):
    name = "plain"

    def problem(self, machine: Machine) -> str | None:
        count = machine.world_size
        return None if count == 1 else f"starts one process, not {count} ranks; use torchrun"

    def command(self, settings: LaunchSettings, job: Path, rendezvous: NodeRendezvous) -> list[str]:
        return trainer_command(settings, job)
