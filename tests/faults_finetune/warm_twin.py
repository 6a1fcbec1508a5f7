"""A warm process that is asked for trainers as the real one is and forks twins: `warm_twin.py SOCKET`."""

import sys
from pathlib import Path

from serving.launch import forks
from tests.hub.runs import loaded_twin

if __name__ == "__main__":
    forks.serve(forks.listen(Path(sys.argv[1])))
    sys.exit(loaded_twin.main(sys.argv[1:]))
