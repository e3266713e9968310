"""Records what sevctl and sev-tool make for a platform of make.py's, and what they say of its and sealboot's files.

    python3 tools.py SEVCTL SEVTOOL SEALBOOT > tools.json
"""
import base64
import json
import os
import subprocess
import sys
import tempfile

from cryptography.hazmat.primitives.asymmetric import ec

import make

MILAN = bytes.fromhex("94c38e4177d0479292a7ae671d083fb6")  # sev-tool looks at no root of another key ID
API, DIGEST, NONCE = (1, 55, 21), bytes(range(32)), bytes(range(16))
GUID = "736869e5-84f0-4973-92ec-06879ce3da0b"
sevctl, sevtool, sealboot = map(os.path.abspath, sys.argv[1:])


def run(*args, check=True):
    p = subprocess.run(args, capture_output=True, text=True)
    if check and p.returncode:
        sys.exit(f"{args}: {p.stdout}{p.stderr}")
    return p


def tool(*args):
    """sev-tool's exit status is 0 always: it tells success in words."""
    return "Command Successful" in run(sevtool, "--ofolder", ".", *args).stdout


def put(name, data):
    with open(name, "wb") as f:
        f.write(data)


def get(name):
    with open(name, "rb") as f:
        return f.read()


def split(data, *names):
    size = len(data) // len(names)
    for i, name in enumerate(names):
        put(name, data[i * size:][:size])


def session(maker, policy, godh, blob, tik, tek):
    return {"maker": maker, "policy": policy, "godh": godh.hex(), "session": blob.hex(), "tik": tik.hex(), "tek": tek.hex()}


def launch(keys, policy, tik, tek):
    """A measurement of either tool, and secrets sealed for it."""
    put("tik.bin", tik)
    put("tek.bin", tek)
    put("tmp_tk.bin", tek + tik)
    measured = run(sevctl, "measurement", "build", "--api-major", str(API[0]), "--api-minor", str(API[1]), "--build-id", str(API[2]),
                   "--policy", str(policy), "--nonce", base64.b64encode(NONCE).decode(), "--tik", "tik.bin",
                   "--launch-digest", base64.b64encode(DIGEST).decode()).stdout.strip()
    assert tool("--calc_measurement", "04", *(f"{v:02x}" for v in API), f"{policy:08x}", DIGEST.hex(), NONCE.hex(), tik.hex())
    put("passphrase", b"MARMALADE")
    run(sevctl, "secret", "build", "--tik", "tik.bin", "--tek", "tek.bin", "--launch-measure-blob", measured, "--secret", f"{GUID}:passphrase",
        "header", "payload")
    table = make.table((GUID, b"MARMALADE"))
    put("secret.txt", table)
    assert tool("--package_secret")
    return {
        "keys": keys, "policy": policy, "tik": tik.hex(), "tek": tek.hex(),
        "sevctl": {"measurement": base64.b64decode(measured).hex(), "header": get("header").hex(), "payload": get("payload").hex()},
        "sevtool": {"measurement": (get("calc_measurement_out.bin") + NONCE).hex(),
                    "header": get("packaged_secret_header.bin").hex(), "payload": get("packaged_secret.bin").hex()},
    }


platform = make.case("tools", 4096, ec.generate_private_key(ec.SECP384R1()), 0, API, make.table((GUID, b"x")), MILAN)
raw = {k: bytes.fromhex(platform[k]) for k in ("pdh", "cert_chain", "ca")}
os.chdir(tempfile.mkdtemp())
put("pdh.cert", raw["pdh"])
split(raw["cert_chain"], "pek.cert", "oca.cert", "cek.cert")
split(raw["ca"], "ask.cert", "ark.cert")
put("cert_chain.cert", raw["cert_chain"])
put("ask_ark.cert", raw["ca"])
put("sev.chain", raw["pdh"] + raw["cert_chain"])  # as sevctl export writes it

out = {
    "platform": {k: platform[k] for k in ("ca", "pdh", "cert_chain", "root", "pdh_private")} | {"api": API, "digest": DIGEST.hex()},
    "chain_accepted": {"sevctl": not run(sevctl, "verify", "--sev", "sev.chain", "--ca", "ask_ark.cert", check=False).returncode,
                       "sevtool": tool("--validate_cert_chain")},
    "sessions": [], "launches": [],
}
for policy in (0x3, 0x3701000B):
    run(sevctl, "session", "--name", "s", "sev.chain", str(policy))
    made = session("sevctl", policy, base64.b64decode(get("s_godh.b64")), base64.b64decode(get("s_session.b64")), get("s_tik.bin"), get("s_tek.bin"))
    out["sessions"].append(made)
    assert tool("--generate_launch_blob", f"{policy:x}")
    tk = get("tmp_tk.bin")
    out["sessions"].append(session("sevtool", policy, get("godh.cert"), get("launch_blob.bin"), tk[16:], tk[:16]))
    run(sealboot, "sev", "session", "--pdh", "pdh.cert", "--cert-chain", "cert_chain.cert", "--ca", "ask_ark.cert", "--trust-root",
        platform["root"], "--policy", hex(policy), "--output", f"ours{policy}", "--format", "sevctl", "--name", "s")
    for keys, tik, tek in (("sevctl", get("s_tik.bin"), get("s_tek.bin")), ("sevtool", tk[16:], tk[:16]),
                           ("sealboot", get(f"ours{policy}/s_tik.bin"), get(f"ours{policy}/s_tek.bin"))):
        out["launches"].append(launch(keys, policy, tik, tek))
run(sevctl, "generate", "owner.cert", "owner.key")
out["sevctl_oca"] = get("owner.cert").hex()
print(json.dumps(out, indent=1))
