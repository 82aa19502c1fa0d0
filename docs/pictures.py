"""Draws the README's pictures: the top of a run's report in light and in dark mode. `python docs/pictures.py RUN`.

Needs Chromium or Chrome on the path, and no network.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from results.report.html import write_report
from trainer.errors import InputError

PICTURES = Path(__file__).parent / "pictures"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_SIZE = "1180,1180"  # width, height in pixels
_MODES = {"light": [], "dark": ["--blink-settings=preferredColorScheme=0"]}


def main(run: Path) -> None:
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        raise InputError("PATH", "browser", "none", f"install one of {', '.join(_BROWSERS)}")
    page = write_report(run).absolute().as_uri()
    PICTURES.mkdir(exist_ok=True)
    for mode, options in _MODES.items():
        target = PICTURES / f"report-{mode}.png"
        with tempfile.TemporaryDirectory() as profile:
            subprocess.run(
                [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}",
                 "--virtual-time-budget=30000", f"--window-size={_SIZE}", *options, f"--screenshot={target}", page],
                check=True, capture_output=True, timeout=180,
            )  # fmt: skip
        print(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
