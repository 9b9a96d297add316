"""Items, their titles, and the trie of title tokens."""
