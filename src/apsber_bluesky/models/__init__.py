"""Models that come with the suite: a card (YAML) and a file each; there is no code here."""
