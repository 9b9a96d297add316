"""The HTTP service: recommendations, rankings and explanations over a catalogue that changes while it runs."""
