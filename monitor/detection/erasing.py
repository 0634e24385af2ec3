"""Taking out of evidence what someone asked to have erased; pure. The counts stay: they name nobody."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import msgspec

from monitor.detection.cells import Cell, hash64
from monitor.detection.wording import description
from monitor.privacy import document_hash
from monitor.records import Alert, Erasure, Evidence, Post


def erase_from_cell(cell: Cell, order: Erasure) -> set[str]:
    """Drop samples and voices of an order from one bucket; returns the hashes of the documents that went.

    An empty set with an unchanged cell means that nothing was found; a voice without a sample changes `cell.authors` only.
    """
    gone: set[str] = set()
    for samples in (cell.negative, cell.other):
        for place in range(len(samples) - 1, -1, -1):
            name = document_hash(samples[place].document_id)
            if name in order.documents or (samples[place].author and samples[place].author in order.authors):
                gone.add(name)
                del samples[place]
    cell.authors -= {hash64(author) for author in order.authors}
    return gone


def erase_from_evidence(evidence: Evidence, gone: AbstractSet[str]) -> Evidence:
    """The evidence without the posts of these documents (by `document_hash`); itself when it holds none."""

    def stays(post: Post | None) -> bool:
        return post is None or document_hash(post.document_id) not in gone

    if not gone or all(map(stays, (*evidence.posts, evidence.first_post))):
        return evidence
    return msgspec.structs.replace(
        evidence,
        posts=tuple(filter(stays, evidence.posts)),
        first_post=evidence.first_post if stays(evidence.first_post) else None,
    )


def erase_from_alert(alert: Alert, gone: AbstractSet[str]) -> Alert:
    """The alert without the posts of these documents, its text written anew; itself when it holds none."""
    evidence = erase_from_evidence(alert.evidence, gone)
    if evidence is alert.evidence:
        return alert
    left = msgspec.structs.replace(alert, evidence=evidence)
    return msgspec.structs.replace(left, description=description(left, {}))
