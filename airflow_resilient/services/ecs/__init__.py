"""Amazon ECS tasks."""
