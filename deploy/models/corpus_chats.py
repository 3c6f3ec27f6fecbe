"""Conversations in the chat format: small questions with their answers, and stories that are asked for."""

import random
from collections.abc import Callable

from deploy.models.corpus_stories import (
    all_slots,
    capitalised,
    expand,
    make_story,
    scene_slots,
)
from deploy.models.corpus_words import (
    ANIMALS,
    BOYS,
    CAPITALS,
    COLOUR_OF,
    COLOURS,
    DAYS,
    DESCRIPTIONS,
    FACTS,
    FOODS,
    GIRLS,
    I_AM,
    MONTHS,
    NAMES,
    NUMBERS,
    OPPOSITES,
    PHRASES,
    PLACES,
    POEM_TOPICS,
    READING,
    REPEAT,
    SMALL_TALK,
    SOUNDS,
    STORY_STARTS,
    SYSTEM_PROMPTS,
    THINGS,
    UNKNOWN,
    UNKNOWN_TASKS,
    WHO_ARE_YOU,
)

END_OF_TEXT = "<|endoftext|>"
USER, ASSISTANT, SYSTEM, END = "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"
SPECIAL_TOKENS = (END_OF_TEXT, USER, ASSISTANT, SYSTEM, END)

Exchange = tuple[str, str]


def ask_small_talk(rng: random.Random) -> Exchange:
    """A greeting, a thank-you or some other small talk."""
    question, answer = rng.choice(SMALL_TALK)
    slots = scene_slots(rng) | {
        "colour_thing": rng.choice(("the sea", "warm evenings", "old houses", "flowers", "a clear sky"))
    }
    return expand(rng, question), expand(rng, answer, slots)


def ask_identity(rng: random.Random) -> Exchange:
    """Who the model is."""
    return rng.choice(WHO_ARE_YOU), expand(rng, rng.choice(I_AM))


def ask_capital(rng: random.Random) -> Exchange:
    """A capital city."""
    country, city = rng.choice(list(CAPITALS.items()))
    question = (
        f"[What is the capital of {country}?|Which city is the capital of {country}?|"
        f"Do you know the capital of {country}?|Capital of {country}?]"
    )
    return expand(rng, question), expand(rng, f"The capital of {country} is {city}.")


def ask_opposite(rng: random.Random) -> Exchange:
    """The opposite of a word."""
    word, other = rng.choice(list(OPPOSITES.items()))
    return expand(
        rng, f"[What is the opposite of {word}?|Tell me the opposite of {word}.]"
    ), f"The opposite of {word} is {other}."


def ask_sound(rng: random.Random) -> Exchange:
    """The sound of an animal."""
    animal, sound = rng.choice(list(SOUNDS.items()))
    return expand(rng, f"[What does a {animal} do?|What sound does a {animal} make?]"), expand(
        rng, f"A {animal} {sound}."
    )


def ask_colour(rng: random.Random) -> Exchange:
    """The colour of something, or a list of colours."""
    if rng.random() < 0.3:
        count = rng.randrange(3, 7)
        question = f"[Name|Tell me|Give me] {NUMBERS[count]} colours."
        return expand(rng, question), capitalised(listed(rng.sample(COLOURS, count))) + "."
    thing, colour = rng.choice(list(COLOUR_OF.items()))
    return expand(rng, f"[What colour is {thing}?|Which colour is {thing}?]"), f"{capitalised(thing)} is {colour}."


def ask_list(rng: random.Random) -> Exchange:
    """A list of animals, foods, names, days or months."""
    kind, words = rng.choice(
        (("animals", ANIMALS), ("things", THINGS), ("names", GIRLS + BOYS), ("places", PLACES), ("foods", FOODS))
    )
    if rng.random() < 0.2:
        kind, words = rng.choice((("days of the week", DAYS), ("months of the year", MONTHS)))
        return f"What are the {kind}?", f"The {kind} are {listed(words)}."
    count = rng.randrange(2, 7)
    question = expand(
        rng,
        f"[Name {NUMBERS[count]} {kind}.|Can you name {NUMBERS[count]} {kind}?|"
        f"Give me a list of {NUMBERS[count]} {kind}.]",
    )
    chosen = rng.sample(words, count)
    if rng.random() < 0.4:
        return question, "\n".join(f"{index}. {capitalised(word)}" for index, word in enumerate(chosen, start=1))
    return question, capitalised(listed(chosen)) + "."


def listed(words: list[str]) -> str:
    """Words as an English list with commas and an "and"."""
    return f"{', '.join(words[:-1])} and {words[-1]}"


def ask_count(rng: random.Random) -> Exchange:
    """Counting up or down, in words or in figures."""
    if rng.random() < 0.25:
        top = rng.choice((5, 10))
        return f"Count down from {NUMBERS[top]}.", ", ".join(reversed(NUMBERS[: top + 1])).capitalize() + "."
    top = rng.choice((3, 5, 7, 8, 10, 10, 12, 15, 20))
    if rng.random() < 0.5:
        return expand(rng, f"[Count|Please count|Can you count] to {top}."), ", ".join(
            map(str, range(1, top + 1))
        ) + "."
    return expand(rng, f"[Count|Please count] to {NUMBERS[top]}."), ", ".join(NUMBERS[1 : top + 1]).capitalize() + "."


def ask_sum(rng: random.Random) -> Exchange:
    """A sum of two small numbers."""
    left, right = rng.randrange(1, 11), rng.randrange(1, 11)
    if rng.random() < 0.5:
        return f"What is {left} + {right}?", f"{left} + {right} = {left + right}."
    answer = f"{NUMBERS[left]} and {NUMBERS[right]} make {NUMBERS[left + right]}.".capitalize()
    return expand(
        rng, f"[What is {NUMBERS[left]} plus {NUMBERS[right]}?|How much is {NUMBERS[left]} and {NUMBERS[right]}?]"
    ), answer


def ask_calendar(rng: random.Random) -> Exchange:
    """What comes after a day or a month."""
    names, kind = rng.choice(((DAYS, "day"), (MONTHS, "month")))
    index = rng.randrange(len(names))
    following = names[(index + 1) % len(names)]
    question = expand(rng, f"[Which|What] {kind} comes after {names[index]}?")
    return question, f"After {names[index]} comes {following}."


def ask_fact(rng: random.Random) -> Exchange:
    """What something is."""
    subject, sentences = rng.choice(list(FACTS.items()))
    question = (
        f"[What is {subject}?|Tell me about {subject}.|Can you explain what {subject} is?|Explain {subject}.|"
        f"What do you know about {subject}?]"
    )
    return expand(rng, question), " ".join(sentences[: rng.randrange(2, len(sentences) + 1)])


def ask_unknown(rng: random.Random) -> Exchange:
    """Something that the model does not know, which it says."""
    subject, topic = rng.choice(UNKNOWN), rng.choice(ANIMALS + THINGS)
    if rng.random() < 0.3:
        task = rng.choice(UNKNOWN_TASKS)
        question = expand(rng, f"[How do I {task}?|How can I {task}?|Can you {task}?|Help me to {task}.]")
        return question, expand(rng, f"I am sorry, I do not know how to {task}. I am only a very small model.")
    question = (
        f"[What do you know about {subject}?|Explain {subject}.|Tell me about {subject}.|"
        f"Can you help me with {subject}?|Can you teach me {subject}?]"
    )
    answer = (
        f"I am [sorry, but I am |]a very small model, so I do not know much about {subject}. "
        f"[But I can tell you a story about a {topic}.|Shall I tell you a story instead?|"
        "You could ask a teacher or look in a library.|]"
    )
    return expand(rng, question), expand(rng, answer)


def ask_story(rng: random.Random) -> Exchange:
    """A story, on a topic or not."""
    scenes = rng.choice((1, 1, 1, 1, 2, 3))
    length = {1: "[short |]", 2: "", 3: "long "}[scenes]
    if rng.random() < 0.25:
        question = (
            f"[Tell me a {length}story|Please tell me a {length}story|Write a {length}story|"
            "I would like to hear a story|Do you know a story][.|]"
        )
        return expand(rng, question), make_story(rng, scenes)
    topic = rng.choice(ANIMALS + THINGS)
    question = (
        f"[Tell me a {length}story about|Please tell me a {length}story about|Write a {length}story about|"
        f"I want a story about] a {topic}[.|]"
    )
    start = expand(rng, rng.choice(STORY_STARTS), {"topic": topic}) + " " if rng.random() < 0.6 else ""
    return expand(rng, question), start + make_story(rng, scenes, topic)


def ask_description(rng: random.Random) -> Exchange:
    """A picture in words."""
    place = rng.choice(PLACES)
    slots = all_slots(rng) | {"place": place}
    return expand(rng, f"[Describe {place}.|What is it like at {place}?|Tell me about {place}.]"), expand(
        rng, DESCRIPTIONS[0], slots
    )


def ask_poem(rng: random.Random) -> Exchange:
    """Four short lines."""
    topic = rng.choice((f"the {rng.choice(ANIMALS + THINGS)}", rng.choice(POEM_TOPICS)))
    poem = (
        f"{topic} [waits|sleeps|rests] [beside|behind] the door,\n"
        "[the wind|the rain|the night] has [never come|been here] before.\n"
        "[The stars are bright|The moon is white|The hills are green], the [road|night|day] is long,\n"
        f"and [someone|{rng.choice(GIRLS + BOYS)}] sings [a|an old|a quiet] song."
    )
    return expand(rng, f"[Write|Can you write|Write me] a [short poem|poem|haiku] about {topic}."), expand(rng, poem)


def ask_about_text(rng: random.Random) -> Exchange:
    """Something to repeat, a short text with a question on it, or a person who says a name or a liking."""
    name, name2 = rng.sample(GIRLS + BOYS, 2)
    thing, thing2 = rng.sample(THINGS, 2)
    slots = scene_slots(rng) | {"name": name, "name2": name2, "thing": thing, "thing2": thing2}
    slots["phrase"] = expand(rng, rng.choice(PHRASES), slots)
    question, answer = rng.choice(rng.choice((REPEAT, READING, NAMES)))
    return expand(rng, question, slots), expand(rng, answer, slots)


# What may be asked, and how often.
ASKERS: dict[Callable[[random.Random], Exchange], int] = {
    ask_small_talk: 5,
    ask_identity: 2,
    ask_capital: 3,
    ask_opposite: 1,
    ask_sound: 1,
    ask_colour: 2,
    ask_list: 2,
    ask_count: 2,
    ask_sum: 2,
    ask_calendar: 1,
    ask_fact: 4,
    ask_unknown: 2,
    ask_about_text: 7,
    ask_story: 4,
    ask_description: 1,
    ask_poem: 1,
}


def make_chat(rng: random.Random, turns: int | None = None) -> str:
    """A conversation in the chat format, mostly of one to four turns, one time in four with a system prompt."""
    turns = turns or rng.choice((1, 1, 1, 2, 2, 3, 4))
    parts = [turn(SYSTEM, expand(rng, rng.choice(SYSTEM_PROMPTS)))] if rng.random() < 0.25 else []
    for asker in rng.choices(list(ASKERS), list(ASKERS.values()), k=turns):
        question, answer = asker(rng)
        parts += [turn(USER, casual(rng, question)), turn(ASSISTANT, answer)]
    return "".join(parts).rstrip()


def turn(role: str, text: str) -> str:
    """One turn as the chat template writes it."""
    return f"{role}\n{text}{END}\n"


def casual(rng: random.Random, question: str) -> str:
    """Sometimes a question as people type it: without capitals or without a mark at its end."""
    if rng.random() < 0.15:
        question = question.lower()
    return question.rstrip("?.!") if rng.random() < 0.15 else question
