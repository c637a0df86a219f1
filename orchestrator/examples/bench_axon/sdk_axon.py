"""The axon of SDK 9 or 10 with one synapse, the peer of bench_axon: argv[1] is a folder for the port."""

import os
import socket
import sys
import time
from typing import ClassVar, Optional

import bittensor
from bittensor.core.axon import Axon
from bittensor.core.synapse import Synapse
from bittensor_wallet import Keypair

bittensor.logging.off()


class Ping(Synapse):
    required_hash_fields: ClassVar[tuple[str, ...]] = ("name",)
    version: Optional[str] = None
    hotkey: Optional[str] = None
    time_ns: Optional[int] = None


class Wallet:
    """Just the hotkey: an axon needs no more, and no files."""

    hotkey = Keypair.create_from_seed("0x" + "01" * 32)
    coldkeypub = hotkey


def ping(synapse: Ping) -> Ping:
    synapse.version = bittensor.__version__
    synapse.hotkey = Wallet.hotkey.ss58_address
    synapse.time_ns = time.time_ns()
    return synapse


with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
axon = Axon(wallet=Wallet(), port=port, ip="127.0.0.1", external_ip="127.0.0.1")
axon.attach(ping)
axon.start()
while True:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
        break
    except OSError:
        time.sleep(0.05)
with open(os.path.join(sys.argv[1], "port.new"), "w") as file:
    file.write(str(port))
os.rename(os.path.join(sys.argv[1], "port.new"), os.path.join(sys.argv[1], "port"))
while True:
    time.sleep(3600)
