"""Calls the axon with requests signed by `bittensor.http_auth` of SDK 11, honest and spoilt, and asks
the SDK's own `verify` for its opinion of each.

argv: port, the axon's hotkey, the caller's seed, the stranger's seed. One JSON object on the last line.
"""

import http.client
import json
import sys
import time

import bittensor
from bittensor import http_auth
from bittensor.keyfiles import Keypair

PORT, HOTKEY = int(sys.argv[1]), sys.argv[2]
SECOND = 1_000_000_000


def pair(seed, crypto_type=1):
    return Keypair.create_from_seed(bytes.fromhex(seed.removeprefix("0x")), crypto_type=crypto_type)


CALLER, STRANGER = (pair(seed) for seed in sys.argv[3:5])
ED = pair(sys.argv[3], 0)
STORE = http_auth.InMemoryNonceStore()


def send(headers, body=b"{}", method="POST", path="/v1/ping"):
    """The axon's answer, and the name of the error that the SDK's server would raise."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
    connection.request(method, path, body=body, headers=headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    try:
        http_auth.verify(headers, body, method=method, path=path, self_hotkey_ss58=HOTKEY,
                         nonce_store=STORE)
        sdk = None
    except http_auth.AuthError as error:
        sdk = type(error).__name__
    return {"status": response.status, "body": answer, "sdk": sdk,
            "type": response.getheader("content-type")}


def sign(who=CALLER, body=b"{}", path="/v1/ping", receiver=HOTKEY, nonce=None, method="POST"):
    return http_auth.sign(who, method=method, path=path, body=body, receiver_ss58=receiver,
                          nonce_ns=nonce)


def without(name):
    headers = sign()
    del headers[name]
    return headers


def changed(name, value):
    return sign() | {name: value}


results = {"sdk": bittensor.__version__}
results["honest"] = send(sign())
results["honest_ed25519"] = send(sign(who=ED))
results["honest_query"] = send(sign(path="/v1/ping?a=1&b=%20"), path="/v1/ping?a=1&b=%20")
results["honest_synapse"] = send(sign(path="/Ping"), path="/Ping")
results["stranger"] = send(sign(who=STRANGER))
for name in ("Version", "Hotkey", "Nonce", "Signature"):
    results[f"no_{name.lower()}"] = send(without(f"X-Bittensor-{name}"))
results["unbound"] = send(sign(receiver=None))
results["other_receiver"] = send(sign(receiver=STRANGER.ss58_address))
results["stale"] = send(sign(nonce=time.time_ns() - 60 * SECOND))
results["future"] = send(sign(nonce=time.time_ns() + 60 * SECOND))
results["version_2"] = send(changed("X-Bittensor-Version", "2"))
results["nonce_text"] = send(changed("X-Bittensor-Nonce", "soon"))
results["crypto_unknown"] = send(changed("X-Bittensor-Crypto", "rsa"))
results["crypto_swapped"] = send(changed("X-Bittensor-Crypto", "ed25519"))
results["signature_text"] = send(changed("X-Bittensor-Signature", "0xnothing"))
results["signature_short"] = send(changed("X-Bittensor-Signature", "0x00"))
results["address_text"] = send(changed("X-Bittensor-Hotkey", "5Nobody"))
results["other_sender"] = send(changed("X-Bittensor-Hotkey", STRANGER.ss58_address))
results["other_nonce"] = send(changed("X-Bittensor-Nonce", str(time.time_ns())))
results["tampered_body"] = send(sign(), body=b'{"a":1}')
results["tampered_path"] = send(sign(), path="/v1/echo")
results["tampered_query"] = send(sign(), path="/v1/ping?admin=1")
headers = sign()
results["first"] = send(headers)
results["replayed"] = send(headers)
results["not_json"] = send(sign(body=b"{nonsense"), body=b"{nonsense")
results["unknown"] = send(sign(path="/v1/nothing"), path="/v1/nothing")
results["method"] = send(sign(method="GET", body=b""), body=b"", method="GET")
print("\n" + json.dumps(results))
