"""The synthetic English that the bundled model is trained on: documents of every kind, without end.

Everything is made from the word lists and templates of `corpus_words`: `corpus_stories` fills them, and `corpus_chats`
makes conversations of them. The same seed always makes the same text.
"""

import random
from collections.abc import Iterator

from deploy.models.corpus_chats import make_chat
from deploy.models.corpus_stories import (
    make_description,
    make_dialogue,
    make_facts,
    make_story,
)


def make_document(rng: random.Random) -> str:
    """One document of any kind, without the end-of-text token."""
    draw = rng.random()
    if draw < 0.20:
        return make_story(rng, scenes=rng.choice((1, 1, 1, 2, 3)))
    if draw < 0.23:
        return make_story(rng, scenes=rng.randrange(4, 12))
    if draw < 0.30:
        return make_facts(rng)
    if draw < 0.35:
        return make_description(rng)
    if draw < 0.40:
        return make_dialogue(rng)
    return make_chat(rng, turns=rng.randrange(6, 20) if draw > 0.97 else None)


def documents(seed: int) -> Iterator[str]:
    """Documents without end; the same seed makes the same ones."""
    rng = random.Random(seed)
    while True:
        yield make_document(rng)
