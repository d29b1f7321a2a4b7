"""`python -m dcmsync` is `dcmsync`."""

import sys

from dcmsync.cli.main import main

sys.exit(main())
