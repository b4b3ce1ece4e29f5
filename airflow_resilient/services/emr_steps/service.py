"""The description of EMR steps for the registry, read before the client is loaded.

Imports the standard library only; a test enforces it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...core.job import Claim
from ...core.service import Budget, JobEvent, ServiceInfo

if TYPE_CHECKING:
    from ...core.job import Job

_END_STATES = ("COMPLETED", "FAILED", "CANCELLED", "INTERRUPTED")


def read_event(event: Mapping[str, Any]) -> JobEvent | None:
    """Read "EMR Step Status Change"; ``None``: the event is about something else.

    Source: "Amazon EMR events" in the EMR management guide.
    """
    if (event.get("source"), event.get("detail-type")) != SERVICE.event_source:
        return None
    detail = event["detail"]
    step_id = str(detail.get("stepId") or "")
    if not step_id:
        return None
    claim = Claim.read(str(detail.get("name") or ""))
    return JobEvent("emr_steps", (step_id,), claim, ended=detail.get("state") in _END_STATES)


def stop_command(job: Job) -> str:
    """The command that ends the steps by hand."""
    steps = " ".join(map(shlex.quote, job.id.split(",")))
    return f"aws emr cancel-steps --cluster-id {shlex.quote(job.scope)} --step-ids {steps}"


SERVICE = ServiceInfo(
    name="emr_steps",
    title="Amazon EMR steps",
    client="client:EmrSteps",
    scope_noun="cluster",
    public={"EmrAddStepsOperator": "operator", "EmrStepSensor": "sensor"},
    links=("links:EmrClusterLink", "links:EmrStepLogsLink"),
    lookup=("job_flow_id", "job_flow_name", "cluster_states", "not_before"),
    scope_parameter="job_flow_id",
    scope_option="--emr-cluster",
    # Source: Service Quotas L-7D1BF903 (burst) and L-8AF88BF0 (rate). DescribeCluster, asked only when steps
    # ended badly, has a bucket of its own.
    budget=Budget("emr:ListSteps", per_second=0.5, burst=10.0, operations=("emr:ListSteps",)),
    more_budgets=(
        # Source: Service Quotas L-B810434D (burst) and L-72BCD5B1 (rate).
        Budget("emr:DescribeStep", per_second=0.5, burst=10.0, operations=("emr:DescribeStep",)),
        # All calls of an account and region together. Source: Service Quotas L-283CCA2A (burst) and
        # L-432FAB44 (rate); management guide, "How to manage Amazon EMR Service Quotas".
        Budget("emr", per_second=5.0, burst=25.0, operations=("emr:*",)),
    ),
    read_event=read_event,
    event_source=("aws.emr", "EMR Step Status Change"),
    stop_command=stop_command,
    iam={
        "operator": (
            {
                "Sid": "SubmitFindPollAndCancel",
                "Effect": "Allow",
                "Action": [
                    "elasticmapreduce:AddJobFlowSteps",
                    "elasticmapreduce:CancelSteps",
                    "elasticmapreduce:DescribeCluster",
                    "elasticmapreduce:DescribeStep",
                    "elasticmapreduce:ListSteps",
                ],
                "Resource": "arn:aws:elasticmapreduce:REGION:ACCOUNT:cluster/*",
            },
            {
                "Sid": "OnlyWithClusterNames",
                "Effect": "Allow",
                "Action": "elasticmapreduce:ListClusters",
                "Resource": "*",
            },
        ),
        "sensor": (
            {
                "Sid": "Poll",
                "Effect": "Allow",
                "Action": [
                    "elasticmapreduce:DescribeCluster",
                    "elasticmapreduce:DescribeStep",
                    "elasticmapreduce:ListSteps",
                ],
                "Resource": "arn:aws:elasticmapreduce:REGION:ACCOUNT:cluster/*",
            },
        ),
    },
)
