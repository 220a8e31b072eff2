"""Records, events and messages: what they can hold, hostile and damaged ones, how they are read."""
