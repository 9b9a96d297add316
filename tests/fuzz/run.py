"""Fuzz one parser of the importer, led by coverage: `python tests/fuzz/run.py TARGET [SECONDS]` (extra `fuzz`).

What breaks it is written to `fuzz-TARGET-...` in the folder for temporary files, and the command ends with an error;
`python tests/fuzz/run.py TARGET FILE` runs such a file again.
"""

import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))
with atheris.instrument_imports(include=["catalign.data", "json", "csv", "ast", "html"]):
    import fuzz_targets


def main() -> None:
    """Run a target for some seconds from its seeds, or once with a file."""
    name, how = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "60"
    if not how.isdigit():
        fuzz_targets.TARGETS[name](Path(how).read_bytes())
        return
    corpus = Path(tempfile.gettempdir()) / f"fuzz-corpus-{name}"  # stays, and grows with every run
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(fuzz_targets.seeds(name)):
        (corpus / str(number)).write_bytes(seed)
    found = Path(tempfile.gettempdir()) / f"fuzz-{name}-"
    options = [
        f"-max_total_time={how}",
        "-max_len=4096",
        "-len_control=0",
        "-timeout=30",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={found}", str(corpus)], fuzz_targets.TARGETS[name])
    atheris.Fuzz()  # ends the process itself


if __name__ == "__main__":
    main()
