"""`pgray.execution.ray_host` on a machine of two CPUs whose four GPUs are only numbers."""

import sys

from pgray.execution import machine_share
from pgray.execution.ray_host import main

if __name__ == "__main__":
    machine_share.whole_machine = lambda: machine_share.Share(["0", "1"], ["0", "1", "2", "3"])
    main(sys.argv[1])
