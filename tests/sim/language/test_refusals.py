"""The sentences of the study of refusals: new ones, and none on both sides of a split."""

from helpers.language import four_goals

from sim.language.instructions import TEMPLATES, meanings
from sim.language.refusals import PARAPHRASES, UNRELATED, paraphrases

CONFIG = four_goals()


def test_no_paraphrase_is_on_two_lists() -> None:
    lists = [*TEMPLATES.values(), *PARAPHRASES.values()]
    assert sum(map(len, lists)) == len({template for templates in lists for template in templates})
    assert len(PARAPHRASES["calibration"]) >= 19  # for 5 %


def test_unrelated_sentences_are_many_and_name_nothing() -> None:
    chosen, reported = ([text for texts in kinds.values() for text in texts] for kinds in UNRELATED.values())
    assert len(set(reported)) == len(reported) >= 30
    assert not {*chosen} & {*reported}
    assert not {*chosen, *reported} & meanings(CONFIG).keys()
    assert UNRELATED["tuning"].keys() >= UNRELATED["reported"].keys()


def test_a_template_is_filled_with_every_name_of_every_goal() -> None:
    (texts,) = paraphrases(CONFIG, ("to {goal}",))
    assert len(texts) == 4 * 4
    assert texts[:3] == ["to the red goal", "to the red target", "to the goal at the arm's far left"]
