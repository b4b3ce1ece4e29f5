"""How waiting jobs are polled together: plan, budget of calls, events, metrics, log forwarding."""
