"""The detector of people that ships: a small network of our own, trained on `tagclip synth stills`."""
