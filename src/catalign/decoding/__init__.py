"""From a model and a trie to ranked items."""
