"""The sign of life of whoever watches a run, in the run's prefix: `python -m jobs.lease` prints it on the machine."""

from __future__ import annotations

import os
import sys

from providers.errors import TuneplanError

KEY = "lease.json"
#: Names the run's prefix in the object store; it also tells whoever finds the job where the run's record lies.
STORE_VARIABLE = "TUNEPLAN_STORE"
#: A machine whose work is over gives itself back once nobody has renewed the lease for so long.
LEASE_S = 900.0
#: How often it is renewed, with room for some that fail.
RENEW_S = 180.0


def main() -> int:
    """Print the lease as it is; 1 if it cannot be read."""
    from providers.stores import open_store  # may need what the set-up has not installed yet

    try:
        found = open_store(os.environ[STORE_VARIABLE]).get(KEY)
    except (TuneplanError, KeyError) as error:
        sys.stderr.write(f"the lease cannot be read: {error}\n")
        return 1
    sys.stdout.write("" if found is None else found[0].decode(errors="replace"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
