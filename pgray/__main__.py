"""`python -m pgray` is the `pgray` command."""

import sys

from pgray.cli import main

sys.exit(main())
