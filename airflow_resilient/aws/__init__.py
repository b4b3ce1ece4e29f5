"""Shared by the AWS services: clients, errors, logs, links to the console."""
