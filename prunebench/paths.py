"""Where the shipped configs lie."""

from pathlib import Path


def conf_dir() -> Path:
    """Returns the absolute folder of the shipped YAMLs: inside the wheel, or beside the package."""
    here = Path(__file__).resolve().parent
    packaged = here / "conf"
    return packaged if packaged.is_dir() else here.parent / "conf"
