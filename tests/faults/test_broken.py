"""The rules that are broken on purpose are still there to be broken, and name rows that there are."""

import ast

import pytest

from faults.broken import RULES, broken_source
from faults.rows import BY_ID


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_the_rule_can_be_broken(rule):
    ast.parse(broken_source(rule))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_the_rows_that_have_to_notice_exist(rule):
    assert rule.rows
    assert all(BY_ID[row].applies(service, fate) for row, fate, service in rule.rows)
    assert rule.id.isidentifier()
