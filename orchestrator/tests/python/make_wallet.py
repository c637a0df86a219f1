"""Makes wallets with the real library, in the folder of argv[1]; says what it made as JSON.

Wallet `w` with the hotkeys `plain`, `locked` ($NACL) and, where the library can, `ed` (ed25519). The
password is `Correct-Horse-9!`.
"""

import base64
import json
import os
import sys

import bittensor_wallet
from bittensor_wallet import Keypair, Wallet

PASSWORD = "Correct-Horse-9!"
folder = sys.argv[1]
made = {}


def wallet(hotkey):
    return Wallet(name="w", hotkey=hotkey, path=folder)


plain = wallet("plain")
plain.create_new_coldkey(use_password=False, overwrite=True, suppress=True)
plain.create_new_hotkey(use_password=False, overwrite=True, suppress=True)
made["plain"] = plain.hotkey.ss58_address
made["coldkey"] = plain.coldkeypub.ss58_address

locked = wallet("locked")
try:
    locked.create_new_hotkey(
        use_password=True, hotkey_password=PASSWORD, overwrite=True, suppress=True
    )
except TypeError:
    # The 2.x line asks on a terminal only, so the file is encrypted by its own function.
    locked.create_new_hotkey(use_password=False, overwrite=True, suppress=True)
    path = os.path.join(folder, "w", "hotkeys", "locked")
    with open(path, "rb") as file:
        data = file.read()
    data = bittensor_wallet.keyfile.encrypt_keyfile_data(data, PASSWORD)
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, 0o600)
keyfile = wallet("locked").hotkey_file
made["locked"] = bittensor_wallet.keyfile.deserialize_keypair_from_keyfile_data(
    bittensor_wallet.keyfile.decrypt_keyfile_data(keyfile.data, PASSWORD)
).ss58_address
name = "BT_PW_" + os.path.join(folder, "w", "hotkeys", "locked").replace("/", "_").replace(
    ".", "_"
).upper()
veiled = bytes(a ^ name.encode()[i % len(name)] for i, a in enumerate(PASSWORD.encode()))
made["variable"] = [name, base64.b64encode(veiled).decode()]

# The way of before 2023, which the library still writes.
with open(os.path.join(folder, "w", "hotkeys", "plain"), "rb") as file:
    data = file.read()
data = bittensor_wallet.keyfile.legacy_encrypt_keyfile_data(data, PASSWORD)
with open(os.path.join(folder, "w", "hotkeys", "vault"), "wb") as file:
    file.write(bytes(data))
os.chmod(os.path.join(folder, "w", "hotkeys", "vault"), 0o600)

try:
    ed = wallet("ed")
    ed.create_new_hotkey(use_password=False, overwrite=True, suppress=True, crypto_type=0)
    made["ed"] = ed.hotkey.ss58_address
except TypeError:
    pass

phrase = Keypair.generate_mnemonic(12)
made["phrase"] = [phrase, Keypair.create_from_mnemonic(phrase).ss58_address]
print("MADE " + json.dumps(made))
