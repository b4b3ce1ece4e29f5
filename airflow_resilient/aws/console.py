"""URLs of the AWS console, and the links of a task instance to them.

Pure functions make the URLs. An operator calls ``persist`` with the facts as soon as it knows them; Airflow 3
calls ``get_link`` at the end of every visit to a worker, deferral included, and stores the URL for the UI;
2.11 calls it in the webserver, whenever the page is opened.

Source: ``finalize`` in ``airflow/sdk/execution_time/task_runner.py`` (3.x).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from ..compat import BaseOperatorLink, recall

if TYPE_CHECKING:
    from airflow.sdk import Context


def partition_of(region_name: str | None) -> str:
    """The AWS partition of a region: ``aws``, ``aws-cn`` or ``aws-us-gov``.

    >>> partition_of("cn-north-1"), partition_of("us-gov-west-1"), partition_of("eu-west-1")
    ('aws-cn', 'aws-us-gov', 'aws')
    """
    for prefix, partition in (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov")):
        if (region_name or "").startswith(prefix):
            return partition
    return "aws"


_DOMAINS = {"aws": "aws.amazon.com", "aws-cn": "amazonaws.cn", "aws-us-gov": "amazonaws-us-gov.com"}


def console_origin(region_name: str) -> str:
    """Scheme and host of the console of `region_name`."""
    return f"https://console.{_DOMAINS[partition_of(region_name)]}"


def log_stream_url(*, region_name: str, group: str, stream: str) -> str:
    """URL of a CloudWatch log stream; ``""`` when group or stream are not known.

    The console expects names escaped twice, with ``$`` instead of ``%``.

    >>> url = log_stream_url(region_name="cn-north-1", group="/ecs/etl", stream="ecs/main/01")
    >>> url.partition("#")[2]
    'logsV2:log-groups/log-group/$252Fecs$252Fetl/log-events/ecs$252Fmain$252F01'
    """
    if not group or not stream:
        return ""
    names = [quote(quote(name, safe=""), safe="").replace("%", "$") for name in (group, stream)]
    page = "#logsV2:log-groups/log-group/{}/log-events/{}".format(*names)
    return f"{console_origin(region_name)}/cloudwatch/home?region={region_name}{page}"


class ConsoleLink(BaseOperatorLink):
    """A link whose parameters the operator pushes as XCom."""

    name: ClassVar[str] = ""
    key: ClassVar[str] = ""
    url: ClassVar[Callable[..., str]]

    @property
    def xcom_key(self) -> str:
        """The XCom in which Airflow 3 stores the URL; 2.11 does not read this property."""
        return f"_link_{type(self).__name__}"

    @classmethod
    def persist(cls, context: Context, **facts: Any) -> None:
        """Push the parameters of the URL: the keywords of the class's `url`, JSON values.

        With the domain of the console, which links of the amazon provider need to read the same XCom.
        """
        domain = _DOMAINS[partition_of(facts.get("region_name"))]
        context["ti"].xcom_push(key=cls.key, value={**facts, "aws_domain": domain})

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Make the URL from what `persist` pushed; ``""`` before that.

        :param ti_key: task instance, or its key.
        """
        facts = recall(ti_key, self.key)
        if not facts:
            return ""
        return type(self).url(**{name: value for name, value in facts.items() if name != "aws_domain"})
