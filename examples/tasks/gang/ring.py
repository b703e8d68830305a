"""Each node adds its number to a sum that goes once around; the first node prints the total.

Rank 0 listens at MASTER_ADDR:MASTER_PORT, as torchrun's rendezvous does; the others connect to it.
"""

import os
import socket
import time

RANK, SIZE = int(os.environ["SKYPILOT_NODE_RANK"]), int(os.environ["SKYPILOT_NUM_NODES"])
ADDRESS = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))


def main() -> None:
    if RANK == 0:
        with socket.create_server(ADDRESS) as server:
            server.settimeout(60)
            total = 1
            for _ in range(SIZE - 1):
                peer, _ = server.accept()
                with peer:
                    total += int(peer.recv(64))
        print(f"{SIZE} nodes, total {total}")
        return
    for _ in range(600):
        try:
            with socket.create_connection(ADDRESS, timeout=1) as peer:
                peer.sendall(str(RANK + 1).encode())
        except OSError:
            time.sleep(0.1)
        else:
            print(f"node {RANK} gave {RANK + 1}")
            return
    raise SystemExit("the first node was never there")


if __name__ == "__main__":
    main()
