"""The rules: jobs, claims, decisions and the loop that carries them out. Standard library only."""
