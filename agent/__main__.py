"""`python -m agent` is `till-agent`."""

import sys

from agent.commands import main

sys.exit(main())
