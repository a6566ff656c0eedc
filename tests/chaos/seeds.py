"""What `make chaos` is told by environment: where the seeds begin, and how many random runs."""

import os

SEED = int(os.environ.get("CHAOS_SEED", "1"))
RUNS = int(os.environ.get("CHAOS_RUNS", "4"))
