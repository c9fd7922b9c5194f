#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second implementation of the enrolment records and the request channel, written from docs/protocol-channel.md with
hashlib and the `cryptography` package, sharing no code with crypto/. It writes tests/vectors/channel.json:

    tests/reference/channel_vector.py > tests/vectors/channel.json

Every input is fixed, so the output never changes; a test in C reproduces each field."""
import hashlib
import hmac
import json
import struct
import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def label(text):
    out = b"linnet.sa1." + text.encode()
    assert len(out) == 16
    return out


def H(text, message, key=b""):
    return hashlib.blake2b(message, digest_size=32, key=key, person=label(text)).digest()


def extract(salt, ikm):
    return hmac.new(salt or bytes(32), ikm, hashlib.sha256).digest()


def expand(prk, info, length):
    out = block = b""
    for i in range(1, (length + 31) // 32 + 1):
        block = hmac.new(prk, block + info + bytes([i]), hashlib.sha256).digest()
        out += block
    return out[:length]


def labelled_extract(suite, salt, name, ikm):
    return extract(salt, b"HPKE-v1" + suite + name + ikm)


def labelled_expand(suite, prk, name, info, length):
    return expand(prk, struct.pack(">H", length) + b"HPKE-v1" + suite + name + info, length)


def public_bytes(key):
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def hpke_sender(ephemeral, receiver_public, info):
    """RFC 9180 SetupBaseS with a given ephemeral key: enc, key, base nonce, exporter secret."""
    kem, suite = b"KEM" + struct.pack(">H", 0x20), b"HPKE" + struct.pack(">HHH", 0x20, 1, 3)
    enc = public_bytes(ephemeral)
    dh = ephemeral.exchange(X25519PublicKey.from_public_bytes(receiver_public))
    shared = labelled_expand(kem, labelled_extract(kem, b"", b"eae_prk", dh), b"shared_secret", enc + receiver_public, 32)
    context = b"\0" + labelled_extract(suite, b"", b"psk_id_hash", b"") + labelled_extract(suite, b"", b"info_hash", info)
    secret = labelled_extract(suite, shared, b"secret", b"")
    return (enc, labelled_expand(suite, secret, b"key", context, 32),
            labelled_expand(suite, secret, b"base_nonce", context, 12),
            labelled_expand(suite, secret, b"exp", context, 32))


def signed(seed, text, body):
    return body + Ed25519PrivateKey.from_private_bytes(seed).sign(H(text, body))


def invite_text(payload):
    code = payload + H("invit", payload)[:5]
    bits = int.from_bytes(code, "big") << (-len(code) * 8) % 5
    n = (len(code) * 8 + 4) // 5
    symbols = "".join(CROCKFORD[bits >> 5 * (n - 1 - i) & 31] for i in range(n))
    return "linnet1-" + "-".join(symbols[i:i + 8] for i in range(0, n, 8))


def run(start, n=32):
    return bytes((start + i) & 255 for i in range(n))


def main():
    v = {}
    coordinator, authority, device = run(0x00), run(0x20), run(0x40)
    coordinator_public, authority_public, device_public = (
        public_bytes(Ed25519PrivateKey.from_private_bytes(seed)) for seed in (coordinator, authority, device))
    device_id = H("devid", device_public)[:16]
    token_id, token_secret = run(0x60, 16), run(0x70)
    v.update(coordinator_seed=coordinator, coordinator_public=coordinator_public, authority_seed=authority,
             authority_public=authority_public, device_seed=device, device_public=device_public, device_id=device_id,
             token_id=token_id, token_secret=token_secret)
    v["invite"] = invite_text(token_id + token_secret + coordinator_public + authority_public)

    device_class = 7
    body = device_public + struct.pack("<I", device_class) + token_id + coordinator_public
    proof = H("token", body, key=token_secret)
    v["device_class"] = device_class
    v["csr"] = body + proof + Ed25519PrivateKey.from_private_bytes(device).sign(H("enrol", body))
    serial, not_before, not_after = 42, 1767225600, 1798761600
    v.update(certificate_serial=serial, certificate_not_before=not_before, certificate_not_after=not_after)
    v["certificate"] = signed(authority, "certf", struct.pack("<H", 1) + device_id + device_public +
                              struct.pack("<IQQQ", device_class, serial, not_before, not_after))
    v["revocation_number"], v["revoked"] = 3, [run(0x01, 16), run(0x02, 16)]
    v["revocation"] = signed(authority, "revok", struct.pack("<QI", 3, 2) + b"".join(v["revoked"]))

    channel_secret, task, number = run(0x80), run(0xA0, 16), 9
    channel = X25519PrivateKey.from_private_bytes(channel_secret)
    record = task + public_bytes(channel) + struct.pack("<QQQ", number, not_before, not_before + 7 * 24 * 3600)
    v.update(task=task, channel_secret=channel_secret, channel_public=public_bytes(channel), channel_number=number,
             channel_not_before=not_before, channel_not_after=not_before + 7 * 24 * 3600)
    v["channel_key"] = signed(coordinator, "chkey", record)

    method, path, ephemeral_secret = "POST", "/v1/checkin", run(0xC0)
    h0 = H("chhdr", b"\x01" + H("chkey", record) + method.encode() + b"\0" + path.encode())
    enc, key, nonce, exporter = hpke_sender(X25519PrivateKey.from_private_bytes(ephemeral_secret), public_bytes(channel), h0)
    request_body = b"the body of a request"
    signature = Ed25519PrivateKey.from_private_bytes(device).sign(H("reqst", h0 + enc + request_body))
    ciphertext = ChaCha20Poly1305(key).encrypt(nonce, device_id + request_body + signature, h0)
    v.update(method=method, path=path, header_hash=h0, ephemeral_secret=ephemeral_secret, enc=enc,
             request_body=request_body, request_signature=signature,
             request=b"\x01" + struct.pack("<Q", number) + enc + ciphertext)

    suite = b"HPKE" + struct.pack(">HHH", 0x20, 1, 3)
    secret, request_hash = labelled_expand(suite, exporter, b"sec", label("chres"), 32), H("chreq", ciphertext)
    response_nonce, response_body = run(0xE0), b"the body of its response"
    prk = extract(enc + response_nonce, secret)
    v.update(response_secret=secret, request_hash=request_hash, response_nonce=response_nonce,
             response_key=expand(prk, b"key", 32), response_aead_nonce=expand(prk, b"nonce", 12),
             response_body=response_body)
    v["response"] = response_nonce + ChaCha20Poly1305(v["response_key"]).encrypt(
        v["response_aead_nonce"], response_body, h0 + request_hash)

    plain = {"origin": "tests/reference/channel_vector.py; byte strings in hexadecimal, see docs/protocol-channel.md"}
    for name, value in v.items():
        plain[name] = ([x.hex() for x in value] if isinstance(value, list)
                       else value.hex() if isinstance(value, bytes) else value)
    json.dump(plain, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
