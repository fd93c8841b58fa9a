"""Forms of one function that are timed against each other compute the same."""

from __future__ import annotations

import numpy as np
import operator_forms
import operators
import pytest

from pangu_alpha.config import Config, ModelConfig, TrainConfig
from pangu_alpha.parallel.context import set_single_device_context


@pytest.fixture
def forms():
    set_single_device_context("cpu")
    model = ModelConfig(vocab_size=50, hidden_size=16, num_layers=2, num_heads=2, seq_length=8)
    return operator_forms.build_forms(Config(model=model, train=TrainConfig(batch_size=2)))


def test_forms_of_one_function_agree(forms):
    expected = {}
    for form in forms:
        if form.taken:
            expected[form.group] = operator_forms.Function(form.function)(*form.inputs).asnumpy().reshape(-1)
    assert set(expected) == {form.group for form in forms} - {"nothing"}
    for form in forms:
        if form.group == "nothing" or form.name == "MatMul without bias":
            continue
        found = operator_forms.Function(form.function)(*form.inputs).asnumpy().reshape(-1)
        tolerance = 3e-4 if "inexact" in form.name else 1e-5
        np.testing.assert_allclose(found, expected[form.group], rtol=1e-5, atol=tolerance, err_msg=form.name)


def test_times_are_relative_to_the_form_that_the_model_takes(forms):
    few = [form for form in forms if form.group == "square sum"]
    operators.measure(few, seconds=0.0)
    assert all(len(form.forward) == 3 for form in few)
    for form, milliseconds in zip(few, (4.0, 6.0, 2.0), strict=True):
        form.forward[:] = [9.0, milliseconds / 1e3, 9.0]
    rows = operators.describe(few)
    assert [row["relative"] for row in rows] == pytest.approx([2.0, 3.0, 1.0])
    last = operators.table(rows).splitlines()[3]
    assert last.split() == ["square", "sum", "*", "square,", "sum", "of", "rows,", "sum", "2.00", "1.00"]


def test_an_unknown_function_is_one_line(capsys):
    assert operators.main(["--only", "gelu,convolution"]) == 2
    assert capsys.readouterr().err == (
        "operators.py: --only convolution: there is no such function; allowed: nothing, gelu, layer norm, attention, "
        "mask, linear, head loss, square sum, update\n"
    )
