"""Where an agent starts: `python -u …/minimodal/agent/main.py SOCKET`.

Runs under the image's own interpreter, 3.10 or later. The directory that holds the packages
`minimodal` and `cloudpickle` goes to the end of the path: what the image installs wins.
"""

import gc
import os
import sys

if sys.version_info < (3, 10):  # noqa: UP036  # an image may bring any Python
    sys.exit(f"minimodal needs Python 3.10 or later in the image; it has {sys.version.split()[0]}")

BUNDLE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def main() -> None:
    gc.disable()  # until all of ours is imported: see Supervisor
    # Python put this file's directory first: its modules would shadow `concurrent`, `link`, …
    here = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [p for p in sys.path if os.path.realpath(p) != here]
    if BUNDLE not in sys.path:
        sys.path.append(BUNDLE)
    from minimodal.agent.supervisor import Supervisor

    sys.exit(Supervisor(sys.argv[1]).run())


if __name__ == "__main__":
    main()
