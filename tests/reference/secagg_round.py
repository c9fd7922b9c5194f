#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second implementation of a whole round of linnet-sa1, written from docs/protocol.md with hashlib and the
`cryptography` package, sharing no code with crypto/. It writes tests/vectors/crypto/secagg-round.json:

    tests/reference/secagg_round.py > tests/vectors/crypto/secagg-round.json

Every input is fixed, so the output never changes. Eight devices; number 4 drops out before M3, number 2 before M5, number 5
before M7 (it adopts the certificate). A test in C feeds the messages to both machines and compares what they answer."""
import hashlib
import json
import struct
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

L = 2**252 + 27742317777372353535851937790883648493
N, BITS, LENGTH, VECTOR_ID = 8, 20, 301, 2
N_MIN, N_MAX, M_MIN, CORRUPT_PERMILLE = 3, 8, 3, 50


def label(text):
    out = b"linnet.sa1." + text.encode()
    assert len(out) == 16
    return out


def H(text, message, key=b""):
    return hashlib.blake2b(message, digest_size=32, key=key, person=label(text)).digest()


def fixed(*name, n=32):
    """Bytes that stand for a random draw."""
    return hashlib.shake_256(":".join(map(str, name)).encode()).digest(n)


def raw(public_key):
    return public_key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def sign(key, text, body):
    return key.sign(H(text, body))


def le32(value):
    return struct.pack("<I", value)


def scalar(value):
    return value.to_bytes(32, "little")


def x25519(secret, public):
    return X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(public))


def x25519_base(secret):
    return raw(X25519PrivateKey.from_private_bytes(secret).public_key())


def hchacha20(key, nonce):
    def rotate(v, c):
        return (v << c | v >> (32 - c)) & 0xFFFFFFFF

    s = list(struct.unpack("<4I", b"expand 32-byte k") + struct.unpack("<8I", key) + struct.unpack("<4I", nonce))

    def quarter(a, b, c, d):
        for x, y, z, r in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            s[x] = (s[x] + s[y]) & 0xFFFFFFFF
            s[z] = rotate(s[z] ^ s[x], r)

    for _ in range(10):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return struct.pack("<8I", *s[:4], *s[12:])


def xchacha_seal(key, nonce, plaintext, ad):
    return ChaCha20Poly1305(hchacha20(key, nonce[:16])).encrypt(bytes(4) + nonce[16:], plaintext, ad)


def keystream(key, n_bytes):
    """ChaCha20-IETF, nonce = LE32(vector id) || 0^8, block counter from 0."""
    nonce = le32(0) + le32(VECTOR_ID) + bytes(8)  # this package puts the counter in front
    return Cipher(algorithms.ChaCha20(key, nonce), mode=None).encryptor().update(bytes(n_bytes))


def unpack(data):
    bits = int.from_bytes(data, "little")
    return [bits >> (m * BITS) & (2**BITS - 1) for m in range(LENGTH)]


def pack(values):
    bits = sum((v % 2**BITS) << (m * BITS) for m, v in enumerate(values))
    return bits.to_bytes((LENGTH * BITS + 7) // 8, "little")


def mask(key):
    return unpack(keystream(key, (LENGTH * BITS + 7) // 8))


def bitmap(members):
    return sum(1 << i for i in members).to_bytes((N + 7) // 8, "little")


def shares(secret, t, points, *name):
    """Points of a polynomial of degree t - 1 with this constant."""
    coefficients = [secret] + [int.from_bytes(fixed(*name, k, n=64), "little") % L for k in range(1, t)]
    return {x: sum(c * pow(x, k, L) for k, c in enumerate(coefficients)) % L for x in points}


def main():
    coordinator = Ed25519PrivateKey.from_private_bytes(fixed("coordinator"))
    authority = Ed25519PrivateKey.from_private_bytes(fixed("authority"))
    A = fixed("announcement")

    # Enrolled devices, in the order of their ids, which is the roster's.
    devices = []
    for serial in range(1, N + 1):
        key = Ed25519PrivateKey.from_private_bytes(fixed("device", serial))
        public = raw(key.public_key())
        body = struct.pack("<H", 1) + H("devid", public)[:16] + public + struct.pack("<IQQQ", 1, serial, 1, 5000)
        devices.append({"key": key, "seed": fixed("device", serial), "id": H("devid", public)[:16],
                        "certificate": body + sign(authority, "certf", body)})
    devices.sort(key=lambda d: d["id"])

    # M1
    for i, d in enumerate(devices):
        d["r_s"] = int.from_bytes(fixed("r_s", i, n=64), "little") % L
        d["r_b"] = int.from_bytes(fixed("r_b", i, n=64), "little") % L
        d["sk_x"] = H("kxsec", A + d["id"], scalar(d["r_s"]))
        d["sk_e"] = fixed("sk_e", i)
        d["pk_x"], d["pk_e"] = x25519_base(d["sk_x"]), x25519_base(d["sk_e"])
        d["cb"] = H("selfc", A + d["id"], scalar(d["r_b"]))
        body = A + d["id"] + d["pk_x"] + d["pk_e"] + d["cb"] + fixed("nonce", i, n=16)
        d["m1"] = body + sign(d["key"], "advrt", body) + d["certificate"]

    # M2
    t1 = H("rostr", A + le32(N) + b"".join(H("leaf.", d["m1"]) for d in devices))
    m2 = coordinator.sign(t1) + le32(N) + b"".join(d["m1"] for d in devices)
    corrupt = max(1, -(-CORRUPT_PERMILLE * N // 1000))
    t, q = (N - 1 + corrupt) // 2 + 1, (N + corrupt) // 2 + 1

    # M3
    u2 = [i for i in range(N) if i != 4]
    for i in u2:
        d, boxes = devices[i], {}
        points = [j + 1 for j in range(N) if j != i]
        s, b = shares(d["r_s"], t, points, "poly_s", i), shares(d["r_b"], t, points, "poly_b", i)
        for j in range(N):
            if j == i:
                continue
            ad = t1 + le32(i) + le32(j)
            ke = H("shenc", ad, x25519(d["sk_e"], devices[j]["pk_e"]))
            nonce = fixed("box", i, j, n=24)
            boxes[j] = nonce + xchacha_seal(ke, nonce, scalar(s[j + 1]) + scalar(b[j + 1]), ad)
        body = t1 + d["id"] + b"".join(boxes[j] for j in range(N) if j != i)
        d["boxes"], d["shares"], d["m3"] = boxes, (s, b), body + sign(d["key"], "share", body)

    # M4
    t2 = H("setu2", t1 + bitmap(u2))
    for i in u2:
        devices[i]["m4"] = coordinator.sign(t2) + bitmap(u2) + b"".join(devices[j]["boxes"][i] for j in u2 if j != i)

    # M5
    u3, total = [i for i in u2 if i != 2], [0] * LENGTH
    for i in u3:
        d = devices[i]
        x = [int.from_bytes(fixed("x", i, m, n=4), "little") % 2**BITS for m in range(LENGTH)]
        y = [a + b for a, b in zip(x, mask(H("selfm", t2 + d["id"], scalar(d["r_b"]))))]
        for j in u2:
            if j == i:
                continue
            other = devices[j]
            pair = H("pairm", t2 + min(d["pk_x"], other["pk_x"]) + max(d["pk_x"], other["pk_x"]),
                     x25519(d["sk_x"], other["pk_x"]))
            sign_of = 1 if i < j else -1
            y = [a + sign_of * b for a, b in zip(y, mask(pair))]
        d["x"], d["y"] = pack(x), pack(y)
        d["hy"] = H("vecho", d["y"])
        d["header_signature"] = sign(d["key"], "maskd", t2 + d["hy"])  # stands for a real header's
        total = [(a + b) % 2**BITS for a, b in zip(total, x)]

    # M6, M7, M8
    listed = b"".join(devices[i]["hy"] + devices[i]["header_signature"] for i in u3)
    t3 = H("setu3", t2 + bitmap(u3) + H("survl", listed))
    m6 = coordinator.sign(t3) + bitmap(u3) + listed
    attesting = [i for i in u3 if i != 5]
    for i in attesting:
        devices[i]["m7"] = t3 + devices[i]["id"] + sign(devices[i]["key"], "attst", t3)
    certified = attesting[:q]
    m8 = m6 + le32(len(certified)) + b"".join(le32(i) + devices[i]["m7"][-64:] for i in certified)

    # M9
    for i in u3:
        d, body = devices[i], t3 + devices[i]["id"]
        for j in u2:
            if j != i:
                s, b = devices[j]["shares"]
                body += b"\x01" + scalar(b[i + 1]) if j in u3 else b"\x02" + scalar(s[i + 1])
        d["m9"] = body + sign(d["key"], "unmsk", body)

    def text(d):
        keep = ("seed", "id", "certificate", "sk_e", "m1", "m3", "m4", "x", "y", "hy", "header_signature", "m7", "m9")
        out = {name: d[name].hex() for name in keep if name in d}
        out.update(r_s=scalar(d["r_s"]).hex(), r_b=scalar(d["r_b"]).hex())
        return out

    json.dump({
        "origin": "tests/reference/secagg_round.py",
        "announcement": A.hex(), "coordinator_seed": fixed("coordinator").hex(),
        "authority": raw(authority.public_key()).hex(),
        "n": N, "n_min": N_MIN, "n_max": N_MAX, "m_min": M_MIN, "corrupt_permille": CORRUPT_PERMILLE,
        "vector_id": VECTOR_ID, "bits": BITS, "length": LENGTH, "t": t, "q": q,
        "t1": t1.hex(), "t2": t2.hex(), "t3": t3.hex(), "m2": m2.hex(), "m6": m6.hex(), "m8": m8.hex(),
        "devices": [text(d) for d in devices], "sum": pack(total).hex(),
    }, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
