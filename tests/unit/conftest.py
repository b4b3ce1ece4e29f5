"""How thoroughly properties are tested: the same examples each time, or new and more ones to search at night.

``HYPOTHESIS_PROFILE=deep pytest tests/unit`` searches; what it finds becomes a row of a table or a seed.
"""

import os

from hypothesis import HealthCheck, settings

calm = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("fixed", derandomize=True, database=None, max_examples=100, **calm)
settings.register_profile("deep", max_examples=5000, **calm)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
