"""The gateway's program, loaded once and forked for each gateway of the tests: its options are `serving.gateway`'s."""

import socket
import sys

from serving.gateway.__main__ import main
from serving.launch import forks
from serving.pool.engine_start import FORK_AT

if __name__ == "__main__":
    if sys.argv[1] == FORK_AT:
        forks.serve(socket.socket(fileno=int(sys.argv[2])))
    sys.exit(main(sys.argv[1:]))
