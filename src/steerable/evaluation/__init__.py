"""What an edit really did: ``response`` is the one expensive pass, ``summary`` pure functions of it, ``quality`` how
plausible the images still are."""
