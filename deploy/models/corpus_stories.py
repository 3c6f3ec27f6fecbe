"""Templates filled in: stories, facts, descriptions and dialogues.

`corpus_words` holds the templates and explains how they are written.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from deploy.models.corpus_words import (
    ANIMALS,
    BOYS,
    CAPITALS,
    COLOUR_OF,
    COLOURS,
    DAYS,
    DESCRIPTIONS,
    DIALOGUE_LINES,
    ENDINGS,
    FACTS,
    FOODS,
    GIRLS,
    GOALS,
    HIDING,
    HOMES,
    LATER,
    MONTHS,
    NUMBERS,
    OPENINGS,
    OPPOSITES,
    OUTSIDE,
    PLACES,
    PLANTS,
    PLOTS,
    SIZES,
    SKILLS,
    SOUNDS,
    THINGS,
    TIMES,
    TRAIT_LINES,
    TRAITS,
    WEATHER,
    WEATHER_NOW,
    WORKS,
)

_ALTERNATIVES = re.compile(r"\[([^\[\]]*)\]")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiouAEIOU])(?!one\b|use|uni)")


def expand(rng: random.Random, template: str, slots: dict[str, str] | None = None) -> str:
    """Draws the alternatives of `template`, innermost first, fills the slots, and repairs articles and capitals."""
    text = template
    for _ in range(2):  # a slot may itself hold alternatives
        while "[" in text:
            text = _ALTERNATIVES.sub(lambda match: rng.choice(match.group(1).split("|")), text)
        text = text.format_map(slots or {})
    text = _ARTICLE.sub(r"\1n ", text.strip())
    return capitalised(re.sub(r" +(?=[ .,])", "", text))


def capitalised(text: str) -> str:
    """`text` with a capital at its start."""
    return text[:1].upper() + text[1:]


def kept(rng: random.Random, beats: tuple[str, ...]) -> Iterator[str]:
    """The beats that are told this time: those that start with `?` are left out two times in five."""
    for beat in beats:
        if not beat.startswith("?"):
            yield beat
        elif rng.random() < 0.6:
            yield beat[1:]


# -------------------------------------------------------------------------------------------------------------- stories


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody in a story; `pronouns` are subject, object and possessive."""

    name: str
    pronouns: tuple[str, str, str]


def draw_people(rng: random.Random, count: int) -> list[Person]:
    """`count` persons with different names."""
    she, he = ("she", "her", "her"), ("he", "him", "his")
    everyone = [Person(name, she) for name in GIRLS] + [Person(name, he) for name in BOYS]
    return rng.sample(everyone, count)


def person_slots(hero: Person, friend: Person) -> dict[str, str]:
    """The slots for names and pronouns; those of the friend start with `f`."""
    slots = {"hero": hero.name, "friend": friend.name, "girl_boy": "girl" if hero.pronouns[0] == "she" else "boy"}
    for prefix, person in (("", hero), ("f", friend)):
        for slot, word in zip(("he", "him", "his"), person.pronouns, strict=True):
            slots[prefix + slot] = word
            slots[(prefix + slot).capitalize()] = word.capitalize()
    return slots


def scene_slots(rng: random.Random) -> dict[str, str]:
    """The slots for places, things and all else that may change from one scene to the next."""
    hiding, hiding2 = rng.sample(HIDING, 2)
    trait, trait2, trait3 = rng.sample(TRAITS, 3)
    work, work2 = rng.sample(WORKS, 2)
    colour, colour2 = rng.sample(COLOURS, 2)
    few = rng.randrange(2, 9)
    return {
        "place": rng.choice(PLACES),
        "thing": rng.choice(THINGS),
        "animal": rng.choice(ANIMALS),
        "size": rng.choice(SIZES),
        "food": rng.choice(FOODS),
        "plants": rng.choice(PLANTS),
        "skill": rng.choice(SKILLS),
        "outside": rng.choice(OUTSIDE),
        "goal": rng.choice(GOALS),
        "time": f"[{TIMES}]",
        "weather": f"[{WEATHER}]",
        "weather_now": f"[{WEATHER_NOW}]",
        "hiding": hiding,
        "hiding2": hiding2,
        "trait": trait,
        "trait2": trait2,
        "trait3": trait3,
        "work": work,
        "work2": work2,
        "colour": colour,
        "colour2": colour2,
        "n1": NUMBERS[few],
        "n2": NUMBERS[few + rng.randrange(1, 9)],
    }


def make_story(rng: random.Random, scenes: int = 1, topic: str | None = None) -> str:
    """A story about two people, of one paragraph a scene; `topic` is an animal or a thing that appears in it."""
    hero, friend = draw_people(rng, 2)
    home = rng.choice(HOMES)
    slots = person_slots(hero, friend) | scene_slots(rng) | {"home": home, "home_short": short_home(home)}
    fixed = topic_slots(topic)
    opening = [rng.choice(OPENINGS)]
    if "{friend}" not in opening[0]:
        opening += kept(rng, rng.choice((TRAIT_LINES, TRAIT_LINES[:2], ())))
    paragraphs = []
    for index, plot in enumerate(draw_plots(rng, scenes, topic)):
        if index:
            slots = slots | scene_slots(rng) | {"time": f"[{LATER}]"}
        beats = [*(opening if index == 0 else ()), *kept(rng, PLOTS[plot])]
        if index == scenes - 1 and rng.random() < 0.8:
            beats.append(rng.choice(ENDINGS))
        paragraphs.append(" ".join(expand(rng, beat, slots | fixed) for beat in beats))
    return "\n\n".join(paragraphs)


def short_home(home: str) -> str:
    """How people call a home that was described at length: "a quiet town near the mountains" is "the town"."""
    for word in ("village", "town", "farm", "city", "island", "valley"):
        if word in home:
            return f"the {word}"
    return "the neighbourhood"


def topic_slots(topic: str | None) -> dict[str, str]:
    """The slots that `topic` fixes for a whole story."""
    if topic is None:
        return {}
    return {"animal" if topic in ANIMALS else "thing": topic}


def draw_plots(rng: random.Random, count: int, topic: str | None) -> list[str]:
    """The plots of a story, the first of them one in which `topic` appears."""
    if topic is None:
        first = rng.choice(list(PLOTS))
    elif topic in ANIMALS:
        first = "animal"
    else:
        first = rng.choice(("lost", "found", "gift", "market", "quarrel"))
    others = [plot for plot in PLOTS if plot != first]
    return [first, *rng.sample(others, count - 1)]


# ----------------------------------------------------------------------------------------------- facts and descriptions


def make_facts(rng: random.Random) -> str:
    """A paragraph of one to five small facts."""
    makers = (fact_about_subject, fact_capital, fact_opposite, fact_sound, fact_colour, fact_calendar, fact_counting)
    return " ".join(rng.choice(makers)(rng) for _ in range(rng.randrange(1, 6)))


def fact_about_subject(rng: random.Random) -> str:
    """Two or more sentences about one subject."""
    sentences = rng.choice(list(FACTS.values()))
    return " ".join(sentences[: rng.randrange(2, len(sentences) + 1)])


def fact_capital(rng: random.Random) -> str:
    """One sentence on a capital city."""
    country, city = rng.choice(list(CAPITALS.items()))
    return expand(rng, f"[The capital of {country} is {city}.|{city} is the capital of {country}.]")


def fact_opposite(rng: random.Random) -> str:
    """One sentence on a pair of opposites."""
    word, other = rng.choice(list(OPPOSITES.items()))
    return expand(rng, f"[The opposite of {word} is {other}.|If something is not {word}, it may be {other}.]")


def fact_sound(rng: random.Random) -> str:
    """One sentence on the sound of an animal."""
    animal, sound = rng.choice(list(SOUNDS.items()))
    return expand(rng, f"[A {animal} {sound}.|When it is [happy|afraid|hungry], a {animal} {sound}.]")


def fact_colour(rng: random.Random) -> str:
    """One sentence on the colour of something."""
    thing, colour = rng.choice(list(COLOUR_OF.items()))
    return f"{capitalised(thing)} is {colour}."


def fact_calendar(rng: random.Random) -> str:
    """One sentence on the order of days or months."""
    names = rng.choice((DAYS, MONTHS))
    index = rng.randrange(len(names))
    name, following = names[index], names[(index + 1) % len(names)]
    whole = "There are seven days in a week." if names is DAYS else "There are twelve months in a year."
    return rng.choice((f"After {name} comes {following}.", f"{name} comes before {following}.", whole))


def fact_counting(rng: random.Random) -> str:
    """One sentence that adds two small numbers."""
    left, right = rng.randrange(1, 11), rng.randrange(1, 11)
    return f"{NUMBERS[left]} and {NUMBERS[right]} make {NUMBERS[left + right]}.".capitalize()


def make_description(rng: random.Random) -> str:
    """A picture of a place, a person or a thing, or a short letter."""
    return expand(rng, rng.choice(DESCRIPTIONS), all_slots(rng))


def make_dialogue(rng: random.Random) -> str:
    """Two people who talk, one line each."""
    slots = all_slots(rng)
    exchanges = rng.sample(DIALOGUE_LINES, rng.randrange(2, 5))
    scene = expand(rng, "{hero} and {friend} [met|sat|stood] [near|not far from] {place}. {weather}", slots)
    return "\n".join(
        [scene, *(expand(rng, line, slots | scene_slots(rng)) for exchange in exchanges for line in exchange)]
    )


def all_slots(rng: random.Random) -> dict[str, str]:
    """Every slot, for text that is not part of a longer story."""
    home = rng.choice(HOMES)
    return person_slots(*draw_people(rng, 2)) | scene_slots(rng) | {"home": home, "home_short": short_home(home)}
