"""A whole challenge with the real Dendrite of SDK 10, whose answers are no streams.

argv: port, the axon's hotkey, the caller's seed, the host, its GPU. One JSON object on the last line.
"""

import asyncio
import json
import secrets
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
HOST, GPU = sys.argv[4:6]


class OpenChallenge(Synapse):
    required_hash_fields: ClassVar[tuple[str, ...]] = ("name", "host", "gpus", "mode", "nonce_fill")
    host: str
    gpus: Optional[list[str]] = None
    mode: str = "quick"
    nonce_fill: str
    challenge: Optional[str] = None
    events: Optional[list[Any]] = None


class ProbeChallenge(Synapse):
    required_hash_fields: ClassVar[tuple[str, ...]] = ("name", "challenge", "nonce_probe")
    challenge: str
    nonce_probe: str
    roots: Optional[list[Any]] = None
    events: Optional[list[Any]] = None


class OpenCommitments(Synapse):
    required_hash_fields: ClassVar[tuple[str, ...]] = ("name", "challenge", "nonce_open")
    challenge: str
    nonce_open: str
    passed: Optional[bool] = None
    gpus: Optional[list[Any]] = None
    events: Optional[list[Any]] = None


class CancelChallenge(Synapse):
    required_hash_fields: ClassVar[tuple[str, ...]] = ("name", "challenge")
    challenge: str
    cancelled: Optional[bool] = None


async def main():
    dendrite = Dendrite(wallet=CALLER)
    axon = AxonInfo(
        version=1, ip="127.0.0.1", port=PORT, ip_type=4, hotkey=HOTKEY, coldkey=CALLER.ss58_address
    )

    async def call(synapse):
        answer = await dendrite.call(axon, synapse, timeout=60)
        status, message = answer.dendrite.status_code, answer.dendrite.status_message
        return answer, {"status": status, "message": message}

    nonces = [secrets.token_hex(32) for _ in range(3)]
    results = {"sdk": bittensor.__version__, "nonces": nonces}
    opened, results["opened"] = await call(
        OpenChallenge(host=HOST, gpus=[GPU], nonce_fill=nonces[0])
    )
    assert opened.challenge, results
    early, results["early"] = await call(
        OpenCommitments(challenge=opened.challenge, nonce_open=nonces[2])
    )
    probed, results["probed"] = await call(
        ProbeChallenge(challenge=opened.challenge, nonce_probe=nonces[1])
    )
    judged, results["judged"] = await call(
        OpenCommitments(challenge=opened.challenge, nonce_open=nonces[2])
    )
    over, results["over"] = await call(CancelChallenge(challenge=opened.challenge))
    results |= {
        "opened_events": opened.events, "roots": probed.roots, "probed_events": probed.events,
        "passed": judged.passed, "judged_events": judged.events, "gpus": judged.gpus,
    }
    await dendrite.aclose_session()
    print(json.dumps(results))


asyncio.run(main())
