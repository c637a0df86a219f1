"""Calls the axon with the real Dendrite of SDK 9 or 10, and with requests that it made and we spoil.

argv: port, the axon's hotkey, the caller's seed, the stranger's seed. One JSON object on the last line.
"""

import asyncio
import copy
import json
import random
import sys
import time
from typing import Any, ClassVar, Optional

import aiohttp
import bittensor
from bittensor.core.chain_data import AxonInfo
from bittensor.core.dendrite import Dendrite
from bittensor.core.synapse import Synapse
from bittensor.utils import networking
from bittensor_wallet import Keypair

# It would ask servers of the Internet.
networking.get_external_ip = lambda: "192.0.2.1"

PORT, HOTKEY = int(sys.argv[1]), sys.argv[2]
CALLER, STRANGER = (Keypair.create_from_seed(seed) for seed in sys.argv[3:5])
URL = f"http://127.0.0.1:{PORT}"


class Ping(Synapse):
    required_hash_fields: ClassVar[tuple[str, ...]] = ("name",)
    version: Optional[str] = None
    hotkey: Optional[str] = None
    time_ns: Optional[int] = None


class Echo(Synapse):
    required_hash_fields: ClassVar[tuple[str, ...]] = (
        "name", "text", "count", "ratio", "flag", "nothing", "items", "table",
    )
    text: str = "plain"
    count: int = 1
    ratio: float = 1.0
    flag: bool = True
    nothing: Optional[str] = None
    items: list[Any] = []
    table: dict[str, Any] = {}
    echoed: Optional[bool] = None


class Nobody(Synapse):
    pass


class Fail(Synapse):
    required_hash_fields: ClassVar[tuple[str, ...]] = ("name",)


class Slow(Synapse):
    required_hash_fields: ClassVar[tuple[str, ...]] = ("name",)


def axon(hotkey=HOTKEY):
    return AxonInfo(
        version=1, ip="127.0.0.1", port=PORT, ip_type=4, hotkey=hotkey, coldkey=CALLER.ss58_address
    )


def told(synapse):
    return {
        "axon": synapse.axon.status_code,
        "dendrite": synapse.dendrite.status_code,
        "message": synapse.dendrite.status_message,
        "process_time": synapse.axon.process_time,
    }


def any_value(rng, depth=0):
    kinds = 9 if depth < 3 else 7
    kind = rng.randrange(kinds)
    if kind == 0:
        return rng.choice([True, False, None])
    if kind == 1:
        return rng.choice([0, -1, 2**63, -(2**70), rng.randrange(10**30)])
    if kind == 2:
        return rng.choice([0.0, -0.0, 1e16, 1e15, 1e-4, 1e-5, 5e-324, 1.7976931348623157e308])
    if kind == 3:
        return rng.uniform(-1, 1) * 10 ** rng.randrange(-30, 30)
    if kind == 4:
        return rng.choice(["", "it's", '"', "it's \"", "\\", "\n\t\r\x00\x7f", "é\u0301", "😀", "\u200b"])
    if kind in (5, 6):
        # Of the assigned planes only: what is printable there is the same in every Unicode since 9.
        ranges = [(0, 0x17F), (0x391, 0x3A1), (0x410, 0x44F), (0x4E00, 0x9FD0), (0x2000, 0x206F)]
        return "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(12)))
    if kind == 7:
        return [any_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {str(any_value(rng, 3)): any_value(rng, depth + 1) for _ in range(rng.randrange(4))}


async def main():
    results = {"sdk": bittensor.__version__}
    dendrite = Dendrite(wallet=CALLER)

    honest = await dendrite.call(axon(), Ping(), timeout=30)
    end = honest.axon
    text = f"{end.nonce}.{CALLER.ss58_address}.{end.hotkey}.{end.uuid}"
    results["honest"] = told(honest) | {
        "version": honest.version, "hotkey": honest.hotkey, "time_ns": honest.time_ns,
        "signed": Keypair(ss58_address=HOTKEY).verify(text, end.signature),
        "dendrite_hotkey": honest.dendrite.hotkey, "success": honest.is_success,
    }
    results["again"] = told(await dendrite.call(axon(), Ping(), timeout=30))
    results["query"] = told(await dendrite.forward([axon()], Ping(), timeout=30, deserialize=False)
                            and (await dendrite.forward([axon()], Ping(), timeout=30))[0])

    seed = random.randrange(2**32)
    rng = random.Random(seed)
    wrong = []
    for _ in range(150):
        echo = Echo(
            text="".join(str(any_value(rng, 3)) for _ in range(2)), count=rng.randrange(-(10**25), 10**25),
            ratio=rng.uniform(-1, 1) * 10 ** rng.randrange(-300, 300), flag=rng.random() < 0.5,
            nothing=rng.choice([None, "some"]), items=[any_value(rng) for _ in range(3)],
            table={"a": any_value(rng), "b'": any_value(rng)},
        )
        sent = echo.model_copy(deep=True)
        answer = await dendrite.call(axon(), echo, timeout=30)
        if not (answer.is_success and answer.echoed is True):
            wrong.append([sent.model_dump_json(), told(answer)])
    results["echo"] = {"seed": seed, "wrong": wrong[:3]}

    results["wrong_receiver"] = told(await dendrite.call(axon(STRANGER.ss58_address), Ping(), timeout=30))
    results["unknown"] = told(await dendrite.call(axon(), Nobody(), timeout=30))
    results["fails"] = told(await dendrite.call(axon(), Fail(), timeout=30))
    results["slow"] = told(await dendrite.call(axon(), Slow(), timeout=30))
    stranger = Dendrite(wallet=STRANGER)
    unpermitted = await stranger.call(axon(), Ping(), timeout=30)
    results["stranger"] = told(unpermitted) | {"blacklisted": unpermitted.is_blacklist}

    def made(synapse, nonce=None, uuid=None):
        """What Dendrite sends: headers and body."""
        synapse = dendrite.preprocess_synapse_for_request(axon(), synapse, 5.0)
        if nonce is not None:
            synapse.dendrite.nonce = nonce
        if uuid is not None:
            synapse.dendrite.uuid = uuid
        end = synapse.dendrite
        text = f"{end.nonce}.{end.hotkey}.{synapse.axon.hotkey}.{end.uuid}.{synapse.body_hash}"
        end.signature = "0x" + CALLER.sign(text).hex()
        return synapse.to_headers(), synapse.model_dump()

    async with aiohttp.ClientSession() as session:

        async def post(headers, body, path="/Ping"):
            data = body if isinstance(body, (bytes, str)) else json.dumps(body)
            headers = {**headers, "Content-Type": "application/json"}
            async with session.post(URL + path, headers=headers, data=data) as response:
                return {"status": response.status, "body": await response.json(),
                        "code": response.headers.get("bt_header_axon_status_code"),
                        "signature": response.headers.get("bt_header_axon_signature")}

        def without(name):
            headers, body = made(Ping())
            del headers[name]
            return post(headers, body)

        for name in ("signature", "nonce", "uuid", "hotkey"):
            results[f"no_{name}"] = await without(f"bt_header_dendrite_{name}")
        results["no_hash"] = await without("computed_body_hash")

        headers, body = made(Ping())
        signature = headers["bt_header_dendrite_signature"]
        headers["bt_header_dendrite_signature"] = signature[:-1] + ("0" if signature[-1] != "0" else "1")
        results["bad_signature"] = await post(headers, body)
        second = 1_000_000_000
        results["stale"] = await post(*made(Ping(), time.time_ns() - 3600 * second, "fresh-endpoint-1"))
        headers, body = made(Ping(), time.time_ns() - 3600 * second, "fresh-endpoint-2")
        headers["timeout"] = "1e9"
        results["stale_long_timeout"] = await post(headers, body)
        headers, body = made(Ping(), time.time_ns() - 3600 * second, "fresh-endpoint-3")
        headers["bt_header_dendrite_version"] = "1"
        results["stale_old_version"] = await post(headers, body)
        results["future"] = await post(*made(Ping(), time.time_ns() + 3600 * second))
        headers, body = made(Ping())
        results["first"] = await post(headers, body)
        results["replayed"] = await post(headers, body)
        results["older"] = await post(*made(Ping(), int(headers["bt_header_dendrite_nonce"]) - 1))

        headers, body = made(Echo(text="a"))
        tampered = copy.deepcopy(body) | {"text": "b"}
        results["tampered_field"] = await post(headers, tampered, "/Echo")
        headers, body = made(Ping())
        results["other_path"] = await post(headers, body, "/Fail")
        headers, body = made(Ping())
        headers["computed_body_hash"] = "0" * 64
        results["tampered_hash"] = await post(headers, body)
        headers, body = made(Ping())
        results["not_json"] = await post(headers, "{nonsense")
    await dendrite.aclose_session()
    await stranger.aclose_session()
    return results


print("\n" + json.dumps(asyncio.run(main())))
