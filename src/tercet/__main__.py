"""The `tercet` command, also `python -m tercet`, from the process's first moment: what Ctrl-C does is settled before
anything large is imported.
"""

from tercet.interrupt import arm

__all__ = ["main"]


def main() -> None:
    arm()
    from tercet.cli import main as run

    run()


if __name__ == "__main__":
    main()
