"""Token counts from samples: what they say of their own error must hold."""

import math
import random
import re
from collections.abc import Sequence
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.inspect.packing import best_fit_rows, row_use
from planner.inspect.tally import Tally, TokenCount
from planner.lengths import lengths_of
from planner.token_guess import features, guess_tokens

WORDS = [
    "a",
    "of",
    "the",
    "data",
    "model",
    "table",
    "gradient",
    "regression",
    "3.14",
    "==",
    "{}",
    "\n    return",
]
# First article of the Universal Declaration of Human Rights: its tokens in cl100k_base and o200k_base.
ARTICLES = {
    "english": (
        "All human beings are born free and equal in dignity and rights. They are endowed with reas"
        "on and conscience and should act towards one another in a spirit of brotherhood.",
        33, 33),
    "german": (
        "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und"
        " Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
        44, 38),
    "french": (
        "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de"
        " raison et de conscience et doivent agir les uns envers les autres dans un esprit de frate"
        "rnité.",
        50, 41),
    "italian": (
        "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di "
        "ragione e di coscienza e devono agire gli uni verso gli altri in spirito di fratellanza.",
        53, 51),
    "dutch": (
        "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren. Zij zijn begiftigd me"
        "t verstand en geweten, en behoren zich jegens elkander in een geest van broederschap te ge"
        "dragen.",
        53, 41),
    "swedish": (
        "Alla människor är födda fria och lika i värde och rättigheter. De har utrustats med förnuf"
        "t och samvete och bör handla gentemot varandra i en anda av gemenskap.",
        53, 43),
    "russian": (
        "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом"
        " и совестью и должны поступать в отношении друг друга в духе братства.",
        74, 41),
    "greek": (
        "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. Είναι "
        "προικισμένοι με λογική και συνείδηση, και οφείλουν να συμπεριφέρονται μεταξύ τους με πνεύμ"
        "α αδελφοσύνης.",
        172, 71),
    "chinese": (
        "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
        50, 35),
    "korean": (
        "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천"
        "부적으로 이성과 양심을 부여받았으며 서로 형제애의 정신으로 행동하여야 한다.",
        85, 51),
    "hindi": (
        "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। उन"
        "्हें बुद्धि और अन्तरात्मा की देन प्राप्त है और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना"
        " चाहिए।",
        180, 99),
}  # fmt: skip
PIECE = re.compile(r"\w{1,5}|\W")


def count(texts: Sequence[str]) -> list[int]:
    """A tokenizer whose counts are known: pieces of five letters."""
    return [len(PIECE.findall(text)) for text in texts]


def corpus(rng: random.Random) -> list[str]:
    """Texts of very different lengths and kinds: some hold short words, some long ones."""
    texts = []
    for _ in range(rng.choice([300, 1200])):
        kind = rng.choice([WORDS[:5], WORDS[4:8], WORDS])
        texts.append(" ".join(rng.choices(kind, k=max(int(rng.lognormvariate(3.0, 1.2)), 1))))
    return texts


def tallied(texts: list[str], *, exact_chars: int, seed: int = 0, counter: object = count) -> TokenCount:
    tally = Tally(counter, exact_chars=exact_chars, seed=seed)  # type: ignore[arg-type]
    for text in texts:
        tally.add(text, guess_tokens(features(text), 128_000).tokens, 0)
    return tally.result(0.1)


@pytest.mark.parametrize("language", ARTICLES)
def test_guesses_cover_tokenizers_of_large_vocabularies_in_other_languages(language: str) -> None:
    text, *counts = ARTICLES[language]
    guess = guess_tokens(features(text), 128_000)
    for tokens in counts:
        assert abs(math.log(tokens / guess.tokens)) <= 1.2816 * guess.log_sd


def test_little_data_is_counted_exactly() -> None:
    texts = corpus(random.Random(1))
    found = tallied(texts, exact_chars=10**9)
    assert found.how == "counted"
    assert found.total.p10 == found.total.p50 == found.total.p90 == pytest.approx(sum(count(texts)))


def test_sampled_totals_lie_in_their_intervals_as_often_as_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planner.inspect.tally._MOST_SAMPLE", 30)
    rng = random.Random(5)
    inside, errors = [], []
    for seed in range(150):
        texts = corpus(rng)
        truth = sum(count(texts))
        found = tallied(texts, exact_chars=500, seed=seed)
        assert found.how == "sampled"
        inside.append(found.total.p10 <= truth <= found.total.p90)
        errors.append(abs(found.total.p50 / truth - 1))
    assert 0.70 <= fmean(inside) <= 0.92
    assert fmean(errors) < 0.05


def test_guesses_are_wide_and_sampling_is_narrow() -> None:
    texts = corpus(random.Random(2))
    guessed = tallied(texts, exact_chars=500, counter=None)
    sampled = tallied(texts, exact_chars=500)
    assert guessed.how == "guessed"
    assert guessed.total.p90 / guessed.total.p10 > sampled.total.p90 / sampled.total.p10 >= 1


def test_memory_does_not_grow_with_the_data() -> None:
    tally = Tally(count, exact_chars=1000)
    for number in range(60_000):
        tally.add("some words " * (number % 7 + 1), 2.0 * (number % 7 + 1), 1)
    kept = sum(len(stratum.sample) for stratum in tally._strata.values())
    assert kept <= 400 * len(tally._strata)
    assert len(tally._lengths) <= 20_000
    assert tally.result(0.0).lengths.longest == max(tally.result(0.0).lengths.quantiles)


sizes = st.lists(st.integers(1, 300), min_size=1, max_size=80)


@given(sizes, st.integers(1, 200))
def test_best_fit_wastes_no_row_and_cuts_nothing(lengths: list[int], row: int) -> None:
    cut = [min(size, row) for size in lengths]
    rows = best_fit_rows(cut, row)
    assert -(-sum(cut) // row) <= rows <= len(cut)
    assert rows <= 2 * (-(-sum(cut) // row))  # at most one row is less than half full


@given(sizes, st.integers(1, 400))
def test_shares_of_rows_are_shares(lengths: list[int], row: int) -> None:
    use = row_use(lengths_of([float(size) for size in lengths]), row)
    for share in (
        use.truncated_share,
        use.lost_token_share,
        use.best_fit,
        use.wrapped,
        *use.padding.values(),
    ):
        assert -1e-9 <= share <= 1 + 1e-9
    assert use.truncated_share == pytest.approx(fmean(size > row for size in lengths))
    assert use.padding[1] == pytest.approx(0)


def test_each_of_few_records_counts_once_in_the_lengths() -> None:
    texts = ["word " * count for count in (100, 200, 300)]
    assert len(tallied(texts, exact_chars=10**9).lengths.quantiles) == 3


def test_the_longest_of_many_records_is_among_the_lengths() -> None:
    tally = Tally()
    for tokens in [5000.0, *[10.0] * 60_000]:
        tally.add("", tokens, 0)
    lengths = tally.result(0.1).lengths
    assert lengths.longest == 5000.0
    assert lengths.mean == pytest.approx(10, rel=0.2)
