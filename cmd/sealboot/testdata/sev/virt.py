#!/usr/bin/python3
"""Makes virt.json: launches that libvirt's virt-qemu-sev-validate accepts, and the secrets it seals.

    python3 virt.py > virt.json      # virt-qemu-sev-validate 9.0.0 (Debian 12), Python 3.11

Each case holds flags for both tools, in files of measure/testdata. The measurement is computed
here, accepted by the tool, and refused by it with one bit changed.
"""
import base64
import hashlib
import hmac
import json
import os
import struct
import subprocess
import sys
import tempfile
import uuid

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../../measure/testdata")
TOOL = ["/usr/bin/python3", "/usr/bin/virt-qemu-sev-validate"]
API = (1, 55, 21)


def entry(guid, digest):
    return uuid.UUID(guid).bytes_le + struct.pack("<H", 50) + digest


def hashes(kernel, initrd, cmdline):
    body = (entry("97d02dd8-bd20-4c94-aa78-e7714d36ab2a", hashlib.sha256(cmdline + b"\0").digest())
            + entry("44baf731-3a2f-4bd7-9af1-41e29169781d", hashlib.sha256(initrd).digest())
            + entry("4de79437-abd2-427f-b835-d5b172d2045b", hashlib.sha256(kernel).digest()))
    table = uuid.UUID("9438d606-4f22-4cc9-b479-a793d411fd21").bytes_le + struct.pack("<H", 168) + body
    return table.ljust(176, b"\0")


def read(name):
    with open(os.path.join(DATA, name), "rb") as f:
        return f.read()


def run(tmp, args):
    p = subprocess.run(TOOL + args, cwd=DATA, capture_output=True, text=True)
    return p.returncode, p.stdout + p.stderr


def case(name, policy, kernel=None, initrd=None, cmdline=None, states=()):
    measured = read("amdsev-64k.fd")
    args = ["--firmware", "amdsev-64k.fd"]
    if kernel:
        args += ["--kernel", kernel]
        args += ["--initrd", initrd] if initrd else []
        args += ["--cmdline", cmdline] if cmdline is not None else []
        measured += hashes(read(kernel), read(initrd) if initrd else b"", (cmdline or "").encode())
    if states:  # pages of one byte each: neither tool looks inside
        args += ["--num-cpus", str(len(states))]
        measured += b"".join(bytes([s]) * 4096 for s in states)
    digest = hashlib.sha256(measured).digest()
    tik, tek, nonce = os.urandom(16), os.urandom(16), os.urandom(16)
    mac = hmac.new(tik, struct.pack("<BBBBI", 4, *API, policy) + digest + nonce, hashlib.sha256).digest()
    measurement = base64.b64encode(mac + nonce).decode()
    spoilt = base64.b64encode(bytes([mac[0] ^ 1]) + mac[1:] + nonce).decode()
    secrets = {"736869e5-84f0-4973-92ec-06879ce3da0b": b"passphrase of odd length.",
               "11111111-2222-3333-4444-555555555555": bytes(range(7))}
    with tempfile.TemporaryDirectory() as tmp:
        path = lambda n: os.path.join(tmp, n)
        files = {"tik": tik, "tek": tek, **secrets}
        for n, state in zip(("vmsa-cpu0", "vmsa-cpu1"), states):
            files[n] = bytes([state]) * 4096
        for n, data in files.items():
            with open(path(n), "wb") as f:
                f.write(data)
        keys = ["--tik", path("tik"), "--tek", path("tek"), "--policy", str(policy),
                "--api-major", str(API[0]), "--api-minor", str(API[1]), "--build-id", str(API[2])]
        for n in ("vmsa-cpu0", "vmsa-cpu1")[:len(states)]:
            keys += ["--" + n, path(n)]
        inject = ["--secret-header", path("header"), "--secret-payload", path("payload")]
        for guid in secrets:
            inject += ["--inject-secret", ("luks-key" if guid.startswith("7368") else guid) + ":" + path(guid)]
        code, said = run(tmp, args + keys + ["--measurement", spoilt])
        if code == 0:
            sys.exit(f"{name}: a spoilt measurement is accepted")
        refusal = said.strip().splitlines()[-1]
        code, said = run(tmp, args + keys + ["--measurement", measurement] + inject)
        if code != 0:
            sys.exit(f"{name}: {said}")
        packet = {n: open(path(n)).read() for n in ("header", "payload")}
    return {"name": name, "args": args, "policy": policy, "api": API, "tik": tik.hex(), "tek": tek.hex(),
            "measurement": measurement, "spoilt": spoilt, "refusal": refusal, "digest": digest.hex(), "states": list(states),
            "secrets": {k: v.hex() for k, v in secrets.items()}, **packet}


print(json.dumps([
    case("firmware alone", 0),
    case("firmware alone, strict policy", 0x0B),
    case("kernel alone", 0x0B, "kernel.bin"),
    case("kernel and initrd", 0x0B, "kernel.bin", "initrd.bin"),
    case("kernel, initrd and command line", 0x0B, "kernel.bin", "initrd.bin", "console=ttyS0 loglevel=7"),
    case("kernel and command line", 1, "kernel.bin", None, "quiet"),
    case("minimum API", 0x3701000B),
    case("two vCPUs", 0x0F, states=(7, 9)),  # of one, 9.0.0 fails without a second state
    case("three vCPUs, kernel", 0x0F, "kernel.bin", "initrd.bin", "quiet", states=(7, 9, 9)),
], indent=1))
