"""``python -m syncdiffusion`` is the command ``syncdiffusion``."""

import sys

from syncdiffusion.cli import main

sys.exit(main())
