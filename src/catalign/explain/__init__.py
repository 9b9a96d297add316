"""Why an item was recommended: what the answer would have been without each part of the history."""
