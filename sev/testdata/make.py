#!/usr/bin/env python3
"""Makes launch.json: SEV launches computed apart from the Go code, after AMD's SEV API (55766).

Needs python3 and the package "cryptography" (48.0 was used). Keys are new in each run, so the
recorded file is kept; run it only to add cases:  python3 make.py > launch.json
"""
import hashlib
import hmac
import json
import os
import struct
import uuid

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ARK, ASK, NONE, OCA, PEK, PDH, CEK = 0x0, 0x13, 0x1000, 0x1001, 0x1002, 0x1003, 0x1004


def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def kdf(key, label, context, size):
    out, i = b"", 1
    while len(out) < size:
        out += mac(key, struct.pack("<I", i) + label + b"\0" + context + struct.pack("<I", size * 8))
        i += 1
    return out[:size]


def ctr(key, iv, data):
    c = Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor()
    return c.update(data) + c.finalize()


def little(value, size):
    return value.to_bytes(size, "little")


def algorithm(key):
    """Algorithm number and hash of a signing key."""
    if isinstance(key, rsa.RSAPrivateKey):
        return (0x1, hashes.SHA256()) if key.key_size == 2048 else (0x101, hashes.SHA384())
    return 0x2, hashes.SHA256()


def sign(key, data):
    _, h = algorithm(key)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PSS(padding.MGF1(h), h.digest_size), h)[::-1]
    r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(h)))
    return little(r, 72) + little(s, 72)


def ca(key, usage, key_id, by, by_id):
    n, size = key.public_key().public_numbers(), key.key_size // 8
    body = struct.pack("<I16s16sI16xII", 1, key_id, by_id, usage, key.key_size, key.key_size)
    body += little(n.e, size) + little(n.n, size)
    return body + sign(by, body)


def cert(key, usage, algo, signers, api=(0, 0)):
    if isinstance(key, rsa.RSAPrivateKey):
        n = key.public_key().public_numbers()
        public = struct.pack("<I", key.key_size) + little(n.e, 512) + little(n.n, 512)
    else:
        n = key.public_key().public_numbers()
        public = struct.pack("<I", 2) + little(n.x, 72) + little(n.y, 72)
    body = struct.pack("<IBBHII", 1, api[0], api[1], 0, usage, algo) + public.ljust(1028, b"\0")
    out = body
    for i in range(2):
        if i < len(signers):
            by, by_usage = signers[i]
            out += struct.pack("<II", by_usage, algorithm(by)[0]) + sign(by, body).ljust(512, b"\0")
        else:
            out += struct.pack("<II", NONE, 0) + bytes(512)
    assert len(out) == 2084
    return out


def case(name, bits, oca, policy, api, table, ark_id=None):
    def ec_key():
        return ec.generate_private_key(ec.SECP384R1())

    ark, ask = (rsa.generate_private_key(65537, bits) for _ in range(2))
    cek, pek, pdh, owner = ec_key(), ec_key(), ec_key(), ec_key()
    ark_id, ask_id = ark_id or os.urandom(16), os.urandom(16)
    z = owner.exchange(ec.ECDH(), pdh.public_key())
    nonce, tek, tik, iv = (os.urandom(16) for _ in range(4))
    master = kdf(z, b"sev-master-secret", nonce, 16)
    kek, kik = kdf(master, b"sev-kek", b"", 16), kdf(master, b"sev-kik", b"", 16)
    wrapped = ctr(kek, iv, tek + tik)
    le_policy = struct.pack("<I", policy)
    session = nonce + wrapped + iv + mac(kik, wrapped) + mac(tik, le_policy)

    digest, mnonce = os.urandom(32), os.urandom(16)
    measure = mac(tik, b"\x04" + bytes(api) + le_policy + digest + mnonce)
    secret_iv, flags, size = os.urandom(16), struct.pack("<I", 0), struct.pack("<I", len(table))
    secret = ctr(tek, secret_iv, table)
    header = flags + secret_iv + mac(tik, b"\x01" + flags + secret_iv + size + size + secret + measure)
    root = ark.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    values = {
        "ca": ca(ask, ASK, ask_id, ark, ark_id) + ca(ark, ARK, ark_id, ark, ark_id),
        "pdh": cert(pdh, PDH, 0x3, [(pek, PEK)]),
        "cert_chain": cert(pek, PEK, 0x2, [(oca, OCA), (cek, CEK)], api[:2])
        + cert(oca, OCA, algorithm(oca)[0], [(oca, OCA)]) + cert(cek, CEK, 0x2, [(ask, ASK)]),
        "root": hashlib.sha256(root).digest(),
        "pdh_private": pdh.private_numbers().private_value.to_bytes(48, "big"),
        "owner_private": owner.private_numbers().private_value.to_bytes(48, "big"),
        "godh": cert(owner, PDH, 0x3, []),
        "z": z, "nonce": nonce, "tek": tek, "tik": tik, "iv": iv, "master": master, "kek": kek, "kik": kik,
        "session": session, "digest": digest, "measurement": measure + mnonce,
        "table": table, "secret_iv": secret_iv, "packet_header": header, "secret": secret,
    }
    return {"name": name, "policy": policy, "api": list(api), **{k: v.hex() for k, v in values.items()}}


def table(*entries):
    body = b""
    for name, data in entries:
        body += uuid.UUID(name).bytes_le + struct.pack("<I", len(data) + 20) + data
    out = uuid.UUID("1e74f542-71dd-4d66-963e-ef4287ff173b").bytes_le + struct.pack("<I", len(body) + 20) + body
    return out + bytes(-len(out) % 16)


DISK, PIN = "736869e5-84f0-4973-92ec-06879ce3da0b", "5ea1b007-6c75-4b73-8d31-5c0a1f5e9d21"
if __name__ == "__main__":
    print(json.dumps([
        case("keys of 2048 bits", 2048, ec.generate_private_key(ec.SECP384R1()), 0x0, (0, 16, 4), table((DISK, b"MARMALADE"))),
        case("keys of 4096 bits", 4096, ec.generate_private_key(ec.SECP384R1()), 0x3700010b, (1, 55, 21),
             table((DISK, os.urandom(43)), (PIN, os.urandom(32)))),
        case("owner's key is RSA", 4096, rsa.generate_private_key(65537, 2048), 0x5, (1, 51, 3), table((DISK, os.urandom(32)))),
    ], indent=1))
