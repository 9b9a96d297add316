"""Items, their titles, and the trie of title tokens."""

from catalign.catalogue.catalogue import Catalogue
from catalign.catalogue.trie import TitleTrie

__all__ = ["Catalogue", "TitleTrie"]
