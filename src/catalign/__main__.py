"""`python -m catalign`, as launchers of several processes start it: `torchrun --nproc-per-node 2 -m catalign train`."""

import os
import sys

if __name__ == "__main__":
    if "--verbose" not in sys.argv:
        # Read when PyTorch is imported. Each process would advise not to look for weights without a gradient, but which
        # experts of a model have one changes from batch to batch.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

    from catalign.cli.main import main

    main()
