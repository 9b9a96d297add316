"""`python -m catalign`, as launchers of several processes start it: `torchrun --nproc-per-node 2 -m catalign train`."""

from catalign.cli.main import main

if __name__ == "__main__":
    main()
