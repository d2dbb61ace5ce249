"""How fast ctrfs is beside its peers; ``python -m scripts.bench --help``."""
