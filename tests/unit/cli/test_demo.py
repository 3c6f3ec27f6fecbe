import asyncio

import pytest

from deploy.demo import TIMEOUT_S, Story, differences, explain

pytestmark = pytest.mark.unit


def make_story(*token_ids: int, text: str = "") -> Story:
    return Story(number=1, request_id="r", prompt="", token_ids=list(token_ids), text=text)


def test_equal_stories_are_the_same():
    assert differences([make_story(1, 2, text="a")], [make_story(1, 2, text="a")]) == []


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (make_story(1, 3, text="a"), "story 1 is another from token 1 on"),
        (make_story(1, text="a"), "story 1 is another from token 1 on"),
        (make_story(1, 2, 3, text="a"), "story 1 is another from token 2 on"),
        (make_story(1, 2, text="b"), "story 1 has the same tokens and another text"),
    ],
)
def test_what_is_not_the_same_is_found(got, expected):
    assert differences([make_story(1, 2, text="a")], [got]) == [expected]


async def test_waiting_for_a_story_ends_with_it():
    story = make_story(1)
    await story.until(1)
    waiting = asyncio.create_task(story.until(5))
    story.is_over = True
    story.news.set()
    await waiting


def test_what_went_wrong_in_a_group_is_one_line():
    assert explain(ExceptionGroup("", [TimeoutError()])) == f"the stories were not over after {TIMEOUT_S:.0f} s"
    assert explain(ExceptionGroup("", [AssertionError("a token came twice")])) == "AssertionError: a token came twice"
