"""Git in a repository of a test's own."""

import subprocess


def git(folder, *arguments):
    """Return what a command of git prints in a folder."""
    command = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
