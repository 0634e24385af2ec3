"""What stands for a person or a document where neither may be named."""

from __future__ import annotations

import hashlib

ERASED = "babelwatch-erased"
"""Header of an alert that was written anew without erased posts: it is for the page, and nobody is told of it again."""


def document_hash(document_id: str) -> str:
    """Names an erased document in the audit topic without telling its id, which may hold a person's name; 128 bits."""
    return hashlib.blake2b(document_id.encode(), digest_size=16, person=b"bw-erased").hexdigest()
