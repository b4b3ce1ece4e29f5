"""The rules that are broken on purpose are still there to be broken, and name rows that there are."""

import ast

import pytest

from faults.cases import BY_ID, ROWS
from faults.mutants import NOT_OURS, RULES, broken_sources
from faults.runner import all_cases


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_the_rule_can_be_broken(rule):
    for source in broken_sources(rule).values():
        ast.parse(source)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_the_rows_that_have_to_notice_exist(rule):
    assert rule.rows
    assert all(BY_ID[row].applies(service, fate) for row, fate, service in rule.rows)
    assert rule.id.isidentifier()


def test_every_row_that_can_be_perfect_has_a_rule_that_it_guards():
    guarded = {row for rule in RULES for row, *_ in rule.rows}
    named = {row.id for row in ROWS if all(row.limit(s, f) for _, f, s, _ in all_cases([row], ["ours"]))}
    assert {row.id for row in ROWS} - named - set(NOT_OURS) - guarded == set()
    assert not set(NOT_OURS) & guarded
