"""``python -m rlrefine``, which is also how launchers start a run."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python puts the current folder first; a user's own ./rewards there would hide ours.
    here = str(Path(__file__).resolve().parent.parent)
    sys.path = [here, *(entry for entry in sys.path if entry not in ("", str(Path.cwd())) or entry == here)]
    from rlrefine.cli import main

    main()
