"""`python -m kflow`: the same as the console script."""

from __future__ import annotations

import sys

from kflow.cli.main import main

sys.exit(main())
