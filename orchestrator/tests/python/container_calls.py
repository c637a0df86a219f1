"""Containers with the real Dendrite of SDK 10.

argv: port, the axon's hotkey, the caller's seed, the host, the image. One JSON object on the last line.
"""

import asyncio
import json
import sys
from typing import Any, ClassVar, Optional

import bittensor
from bittensor.core.chain_data import AxonInfo
from bittensor.core.dendrite import Dendrite
from bittensor.core.synapse import Synapse
from bittensor.utils import networking
from bittensor_wallet import Keypair

# It would ask servers of the Internet.
networking.get_external_ip = lambda: "192.0.2.1"

PORT, HOTKEY = int(sys.argv[1]), sys.argv[2]
CALLER = Keypair.create_from_seed(sys.argv[3])
HOST, IMAGE = sys.argv[4:6]


class RunContainer(Synapse):
    required_hash_fields: ClassVar[tuple[str, ...]] = (
        "name", "host", "image", "command", "env", "gpus", "gpu_count", "memory_bytes",
        "cpus_milli", "timeout_secs",
    )
    host: str
    image: str
    command: Optional[list[str]] = None
    env: Optional[dict[str, str]] = None
    gpus: Optional[list[str]] = None
    gpu_count: Optional[int] = None
    memory_bytes: Optional[int] = None
    cpus_milli: Optional[int] = None
    timeout_secs: Optional[int] = None
    container: Optional[str] = None
    deadline_ms: Optional[int] = None
    events: Optional[list[Any]] = None


class ListContainers(Synapse):
    required_hash_fields: ClassVar[tuple[str, ...]] = ("name",)
    containers: Optional[list[Any]] = None


class InspectContainer(Synapse):
    required_hash_fields: ClassVar[tuple[str, ...]] = ("name", "container")
    container: str
    running: Optional[bool] = None
    exit_code: Optional[int] = None


class ContainerLogs(Synapse):
    required_hash_fields: ClassVar[tuple[str, ...]] = ("name", "container", "tail")
    container: str
    tail: Optional[int] = None
    log: Optional[list[Any]] = None


class StopContainer(Synapse):
    required_hash_fields: ClassVar[tuple[str, ...]] = ("name", "container")
    container: str
    stopped: Optional[bool] = None


async def main():
    dendrite = Dendrite(wallet=CALLER)
    axon = AxonInfo(
        version=1, ip="127.0.0.1", port=PORT, ip_type=4, hotkey=HOTKEY, coldkey=CALLER.ss58_address
    )
    results = {"sdk": bittensor.__version__}

    async def call(name, synapse):
        answer = await dendrite.call(axon, synapse, timeout=60)
        told = answer.dendrite
        results[name] = {"status": told.status_code, "message": told.status_message}
        return answer

    ran = await call("run", RunContainer(
        host=HOST, image=IMAGE, command=["sh", "-c", 'echo "$A"; exit 7'],
        env={"A": "it's", "B": "é"}, gpu_count=1, timeout_secs=600,
    ))
    assert ran.container, results
    inspected = await call("inspect", InspectContainer(container=ran.container))
    while inspected.exit_code is None:
        inspected = await call("inspect", InspectContainer(container=ran.container))
    read = await call("logs", ContainerLogs(container=ran.container, tail=5))
    listed = await call("list", ListContainers())
    stopped = await call("stop", StopContainer(container=ran.container))
    await call("over", StopContainer(container=ran.container))
    results |= {
        "gpus": ran.gpus, "phases": [event["phase"] for event in ran.events],
        "exit_code": inspected.exit_code, "log": read.log, "stopped": stopped.stopped,
        "listed": [row["container"] == ran.container for row in listed.containers],
    }
    await dendrite.aclose_session()
    print(json.dumps(results))


asyncio.run(main())
