"""`python -m pgray` is the `pgray` command."""

import sys

from pgray.cli.entry import main

sys.exit(main())
