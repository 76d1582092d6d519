"""Images -> a generator. ``steerable`` is the training, ``losses`` its terms, ``loop`` what keeps it: steps, checkpoints, log."""
