"""Let a finished stage repair a part of a picture of any size."""
