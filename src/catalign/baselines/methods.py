"""The baselines that can be run, and the library that holds each."""

from dataclasses import dataclass

LIBRARIES = ("rectools", "cornac")
"""Each has an environment of its own, `requirements/NAME.txt`, and `workers/NAME_methods.py` that runs in it."""


@dataclass(frozen=True)
class Method:
    """A baseline.

    Attributes:
        name: how it is called.
        library: one of `LIBRARIES`.
        what: it in one line, with its source.
        needs_times: it uses when an interaction happened, not only the order.
    """

    name: str
    library: str
    what: str
    needs_times: bool = False


METHODS = {
    method.name: method
    for method in (
        Method("popularity", "rectools", "Most interactions in training."),
        Method("recent-popularity", "rectools", "Most interactions in the last days of training.", needs_times=True),
        Method("item-knn", "rectools", "Items bought by the same people (Sarwar et al., WWW 2001; BM25, TF-IDF)."),
        Method("ease", "rectools", "A linear item-item model in closed form (Steck, WWW 2019)."),
        Method("ials", "rectools", "Implicit matrix factorisation (Hu et al., ICDM 2008)."),
        Method("gru4rec", "cornac", "A recurrent network over sequences (Hidasi et al., ICLR 2016)."),
        Method("sasrec", "rectools", "A causal transformer, full softmax (Kang and McAuley, ICDM 2018)."),
        Method("bert4rec", "rectools", "A transformer that fills gaps, full softmax (Sun et al., CIKM 2019)."),
        Method("esasrec", "rectools", "SASRec with LiGR layers and sampled softmax (RecSys 2025)."),
        Method("hstu", "rectools", "Transducers over sequences, places only (Zhai et al., ICML 2024)."),
    )
}
