"""The rules of the core as one namespace: the real ones, or made again from sources that were changed.

The core is several modules that import each other. Copies of them are executed together, in a package of
their own, so that a changed rule is seen by every other module of its copy and by nobody else.
"""

import ast
import sys
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from types import ModuleType, SimpleNamespace

from airflow_resilient.core import decide, job, reconcile, request, retry, service, text
from airflow_resilient.core.service import RemoteService

# Each after those that it imports.
MODULES = {"job": job, "retry": retry, "decide": decide, "request": request, "reconcile": reconcile}
# What no rule is in: copies import the real ones.
AS_THEY_ARE = {"service": service, "text": text}
# Values that travel between the core and the service under test; they stay the real ones.
SHARED = {"job": ("Phase", "Cause", "Claim")}
# Normalised, so that formatting does not matter.
SOURCES = {
    name: ast.unparse(ast.parse(Path(module.__file__).read_text())) for name, module in MODULES.items()
}

_SERIAL = count(1)


def as_one(modules: Mapping[str, ModuleType]) -> SimpleNamespace:
    """Everything that the modules define, in one namespace."""
    names = {}
    for module in modules.values():
        names |= vars(module)
    return SimpleNamespace(**names)


REAL = as_one(MODULES)


def core(**changed: str) -> SimpleNamespace:
    """The core as its sources say, but for those that are changed; the classes in `SHARED` are the real ones.

    :param changed: the name of a module and its source.
    """
    package = f"changed_core_{next(_SERIAL)}"
    made = {name: ModuleType(f"{package}.{name}") for name in MODULES}
    importable = {package: ModuleType(package)}
    importable |= {f"{package}.{name}": module for name, module in (AS_THEY_ARE | made).items()}
    sys.modules.update(importable)  # where relative imports, and dataclasses, find modules
    try:
        for name, module in made.items():
            shared = SHARED.get(name, ())
            vars(module).update({each: getattr(MODULES[name], each) for each in shared})
            module.__package__ = package
            tree = ast.parse((SOURCES | changed)[name])
            tree.body = [node for node in tree.body if getattr(node, "name", "") not in shared]
            exec(compile(tree, f"{name}.py, changed", "exec"), vars(module))
    finally:
        for each in importable:
            del sys.modules[each]
    return as_one(made)


class Translated(RemoteService):
    """A service whose observations are of the changed core's own class."""

    def __init__(self, service, changed) -> None:
        self.service, self.changed = service, changed
        self.listing_lag, self.batch_size = service.listing_lag, service.batch_size

    def translated(self, job):
        return job if self.changed is REAL else self.changed.Job(**vars(job))

    def find(self, claims):
        return [self.translated(job) for job in self.service.find(claims)]

    def find_forgotten(self, claims, since):
        return [self.translated(job) for job in self.service.find_forgotten(claims, since)]

    def request_fields(self):
        return self.service.request_fields()

    def submit(self, claim):
        return self.translated(self.service.submit(claim))

    def observe(self, jobs):
        return [self.translated(job) for job in self.service.observe(jobs)]

    def cancel(self, job, reason):
        return self.translated(self.service.cancel(job, reason))

    def is_transient(self, error):
        return self.service.is_transient(error)

    def may_have_submitted(self, error):
        return self.service.may_have_submitted(error)

    def lasting(self, error, attempts):
        return self.service.lasting(error, attempts)

    def is_throttle(self, error):
        return self.service.is_throttle(error)

    def address(self):
        return self.service.address()
