"""Signatures that are not those of the trusted key over these bytes."""

from __future__ import annotations

import random
from pathlib import Path

from attacks.attacker import (
    GRAPHS,
    SIGNATURE,
    STRANGER,
    TRUSTED,
    Expected,
    attack,
    edit,
    graph_of,
    put_graph,
    seal,
    sign,
)


@attack
def wrong_signature(folder: Path, rng: random.Random, world: Path) -> Expected:
    path = folder / "SIGNATURE"
    good = path.read_bytes()
    head, key_id, hexadecimal = good.splitlines(keepends=True)
    choice = rng.randrange(12)
    if choice == 0:
        path.unlink()
    elif choice == 1:
        path.write_bytes(sign(folder, world / STRANGER))
    elif choice == 2:  # under the name of the trusted key
        path.write_bytes(sign(folder, world / STRANGER, key_id=key_id.split()[1].decode()))
    elif choice == 3:  # the trusted key's signature of the same bytes for another purpose
        prefix = rng.choice([b"", b"tagclip bundle signature 2\n", b"tagclip query set 1\n"])
        path.write_bytes(sign(folder, world / TRUSTED, prefix=prefix))
    elif choice == 4:
        path.write_bytes(good + rng.choice([b"\n", b" ", b"\0", good, b"# c\n", rng.randbytes(9)]))
    elif choice == 5:
        path.write_bytes(
            rng.choice([good.replace(b"\n", b"\r\n"), good.upper(), good.strip(), b"\xef\xbb\xbf" + good])
        )
    elif choice == 6:
        path.write_bytes(head.replace(b"1", str(rng.randint(2, 10**6)).encode()) + key_id + hexadecimal)
    elif choice == 7:
        path.write_bytes(b"".join(rng.sample([head, key_id, hexadecimal], 2)))
    elif choice == 8:
        path.write_bytes(
            head
            + key_id
            + b"ed25519 "
            + rng.choice([b"0" * 128, b"f" * 128, rng.randbytes(64).hex().encode()])
            + b"\n"
        )
    elif choice == 9:  # S + L: the same equation holds, and RFC 8032 refuses it
        raw = bytes.fromhex(hexadecimal.split()[1].decode())
        order = 2**252 + 27742317777372353535851937790883648493
        s = (int.from_bytes(raw[32:], "little") + order).to_bytes(32, "little")
        path.write_bytes(head + key_id + b"ed25519 " + (raw[:32] + s).hex().encode() + b"\n")
    elif choice == 10:
        path.write_bytes(rng.randbytes(rng.randint(0, 1024)))
    else:
        path.write_bytes(good.replace(b" ", rng.choice([b"  ", b"\t", b""]), 1))
    return SIGNATURE


@attack
def signature_of_another_bundle(folder: Path, rng: random.Random, world: Path) -> Expected:
    """The trusted key signed, but not this: something was changed and sealed after."""
    choice = rng.randrange(4)
    if choice == 0:
        edit(folder, lambda value: value.update(name="another", licence=rng.choice(["MIT", "Apache-2.0"])))
    elif choice == 1:
        (folder / "scores.json").write_text("{}")
        seal(folder)
    elif choice == 2:
        name = rng.choice(GRAPHS)
        model = graph_of(folder, name)
        model.doc_string = "another"
        put_graph(folder, name, model)
    else:
        (folder / "report.json").unlink()
        seal(folder)
    return SIGNATURE
