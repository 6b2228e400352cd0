"""A program that certifies nothing but writes records like a run: started and killed by tests.

usage: writer.py FOLDER COUNT [LIMIT]     LIMIT: largest file size in bytes the system allows
"""

from __future__ import annotations

import sys

from deqcert.errors import RunFolderError
from deqcert.results import RunFolder
from tests.results.made import CONFIGURATION, ENVIRONMENT, certificate


def limit_file_size(size: int) -> None:
    """Make writes beyond `size` bytes fail with an error, as on a full disk."""
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def main() -> None:
    folder, count = sys.argv[1], int(sys.argv[2])
    if len(sys.argv) > 3:
        limit_file_size(int(sys.argv[3]))
    try:
        with RunFolder.create_or_resume(folder, CONFIGURATION, ENVIRONMENT) as run:
            for index in range(count):
                if index not in run.done:
                    run.append(certificate(index, radius=index / 7), label=index % 3)
                    print(index, flush=True)
    except RunFolderError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
