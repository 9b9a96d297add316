"""From a user's tables or a published layout to the dataset folder."""
