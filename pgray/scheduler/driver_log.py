"""Writes `RUN/driver.log`: one line per decision of the driver, for people. The ledger is the record that programs read."""

import contextlib
import logging
import time
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path

from trainer.errors import PgrayError

_MAX_BYTES, _NUM_OLD = 1_000_000, 3


class _Handler(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Ignore it: a log that cannot be written must not end a run."""


@contextlib.contextmanager
def open_driver_log(path: Path) -> Iterator[logging.Logger]:
    """Give a logger that appends to `path`, with times in UTC, and moves a full file to `driver.log.1` to `.3`.

    The first line creates the file. The logger is in no hierarchy, so other logging neither sees it nor changes it.
    """
    handler = _Handler(path, maxBytes=_MAX_BYTES, backupCount=_NUM_OLD, encoding="utf-8", delay=True)
    formatter = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logger = logging.Logger("pgray.driver")
    logger.addHandler(handler)
    try:
        yield logger
    except PgrayError:
        raise  # refused before anything was launched
    except BaseException:
        logger.exception("the driver failed")
        raise
    finally:
        with contextlib.suppress(OSError):
            handler.close()
