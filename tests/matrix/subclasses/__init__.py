"""DAGs that subclass the providers' operators, or call them, with the provider's class and with ours."""
